"""The recurrent map as a dynamical system: fixed points, continuation, bifurcations."""

from cliffs.dynamics.bifurcations import BifurcationDiagram as BifurcationDiagram
from cliffs.dynamics.bifurcations import bifurcation_diagram as bifurcation_diagram
from cliffs.dynamics.bifurcations import locate_bifurcation as locate_bifurcation
from cliffs.dynamics.continuation import Branch as Branch
from cliffs.dynamics.continuation import continue_branch as continue_branch
from cliffs.dynamics.fixed_points import FixedPoints as FixedPoints
from cliffs.dynamics.fixed_points import find_fixed_points as find_fixed_points
from cliffs.dynamics.fixed_points import solve_fixed_points as solve_fixed_points
