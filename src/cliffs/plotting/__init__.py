"""Figures of what the library's functions return: `plot_x(result, ax=None) -> Axes`. Needs matplotlib.

Every function draws on the Axes that it is given, or on those of a new figure, and returns them; `ax.figure.savefig`
stores the picture. Figures are made without pyplot: in a notebook with `%matplotlib inline` `ax.figure` shows it.
matplotlib comes with the `experiments` extra.
"""

from cliffs.plotting._bifurcations import plot_attractors as plot_attractors
from cliffs.plotting._bifurcations import plot_bifurcation_diagram as plot_bifurcation_diagram
from cliffs.plotting._bifurcations import plot_flow as plot_flow
from cliffs.plotting._curvature import plot_smoothness as plot_smoothness
from cliffs.plotting._curvature import plot_spectral_density as plot_spectral_density
from cliffs.plotting._diagnosis import plot_diagnosis as plot_diagnosis
from cliffs.plotting._dynamics import plot_basins as plot_basins
from cliffs.plotting._dynamics import plot_split_path as plot_split_path
from cliffs.plotting._landscape import plot_cliff_law as plot_cliff_law
from cliffs.plotting._landscape import plot_paths as plot_paths
from cliffs.plotting._landscape import plot_profile as plot_profile
from cliffs.plotting._landscape import plot_stability_map as plot_stability_map
from cliffs.plotting._landscape import plot_steps as plot_steps
from cliffs.plotting._landscape import plot_surface as plot_surface
from cliffs.plotting._landscape import plot_surface_3d as plot_surface_3d
from cliffs.plotting._spectra import plot_finite_time_distribution as plot_finite_time_distribution
from cliffs.plotting._spectra import plot_singular_values as plot_singular_values
from cliffs.plotting._spectra import plot_temporal_components as plot_temporal_components
from cliffs.plotting._style import COLORS as COLORS
from cliffs.plotting._style import figure as figure
from cliffs.plotting._style import figure_of as figure_of
from cliffs.plotting._surface_html import surface_html as surface_html
from cliffs.plotting._sweeps import plot_heatmap as plot_heatmap
