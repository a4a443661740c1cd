"""How a Jacobian product grows: step Jacobians, their products, growth bounds, Lyapunov exponents, mean field."""

from cliffs.spectra._growth import MAX_SLOPE as MAX_SLOPE
from cliffs.spectra._growth import ExpansionBound as ExpansionBound
from cliffs.spectra._growth import GrowthReport as GrowthReport
from cliffs.spectra._growth import expansion_bound as expansion_bound
from cliffs.spectra._growth import growth_report as growth_report
from cliffs.spectra._jacobian_operators import LeadingSingularValues as LeadingSingularValues
from cliffs.spectra._jacobian_operators import leading_singular_values as leading_singular_values
from cliffs.spectra._jacobian_operators import multiply_by_product as multiply_by_product
from cliffs.spectra._jacobians import JacobianProduct as JacobianProduct
from cliffs.spectra._jacobians import ProductEigenvalues as ProductEigenvalues
from cliffs.spectra._jacobians import jacobian_products as jacobian_products
from cliffs.spectra._jacobians import log_singular_values as log_singular_values
from cliffs.spectra._jacobians import product_eigenvalues as product_eigenvalues
from cliffs.spectra._jacobians import step_eigenvalues as step_eigenvalues
from cliffs.spectra._jacobians import step_jacobians as step_jacobians
from cliffs.spectra._jacobians import temporal_components as temporal_components
from cliffs.spectra._lyapunov import LyapunovDistribution as LyapunovDistribution
from cliffs.spectra._lyapunov import gradient_flossing as gradient_flossing
from cliffs.spectra._lyapunov import kaplan_yorke_dimension as kaplan_yorke_dimension
from cliffs.spectra._lyapunov import lyapunov_distribution as lyapunov_distribution
from cliffs.spectra._lyapunov import lyapunov_exponents as lyapunov_exponents
from cliffs.spectra._mean_field import mean_field_exponent as mean_field_exponent
