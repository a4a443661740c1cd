"""The recurrent map as a dynamical system: fixed points, continuation, bifurcations."""

from cliffs.dynamics._trace import ENDS as ENDS
from cliffs.dynamics.attractors import attractor_diagram as attractor_diagram
from cliffs.dynamics.bifurcations import BifurcationDiagram as BifurcationDiagram
from cliffs.dynamics.bifurcations import BranchPoints as BranchPoints
from cliffs.dynamics.bifurcations import bifurcation_diagram as bifurcation_diagram
from cliffs.dynamics.continuation import Branch as Branch
from cliffs.dynamics.continuation import continue_branch as continue_branch
from cliffs.dynamics.fixed_points import FixedPoints as FixedPoints
from cliffs.dynamics.fixed_points import find_fixed_points as find_fixed_points
from cliffs.dynamics.fixed_points import solve_fixed_points as solve_fixed_points
from cliffs.dynamics.special_points import SpecialPoint as SpecialPoint
from cliffs.dynamics.special_points import crossing_tangents as crossing_tangents
from cliffs.dynamics.special_points import locate_bifurcation as locate_bifurcation
from cliffs.dynamics.special_points import solve_bifurcation as solve_bifurcation
from cliffs.dynamics.two_parameter import BifurcationCurve as BifurcationCurve
from cliffs.dynamics.two_parameter import CodimensionTwoPoint as CodimensionTwoPoint
from cliffs.dynamics.two_parameter import bifurcation_curve as bifurcation_curve
