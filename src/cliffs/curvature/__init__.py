"""Curvature of a loss: Hessian and Gauss-Newton products, leading eigenpairs, spectral density, smoothness."""

from cliffs.curvature._density import SpectralDensity as SpectralDensity
from cliffs.curvature._density import TraceEstimate as TraceEstimate
from cliffs.curvature._density import smoothed as smoothed
from cliffs.curvature._density import spectral_density as spectral_density
from cliffs.curvature._density import trace as trace
from cliffs.curvature._hessian import Alignment as Alignment
from cliffs.curvature._hessian import Eigenpairs as Eigenpairs
from cliffs.curvature._hessian import alignment as alignment
from cliffs.curvature._hessian import curvature_along as curvature_along
from cliffs.curvature._hessian import eigenpairs as eigenpairs
from cliffs.curvature._hessian import gauss_newton_operator as gauss_newton_operator
from cliffs.curvature._hessian import hessian_operator as hessian_operator
from cliffs.curvature._hessian import hessian_vector_product as hessian_vector_product
from cliffs.curvature._smoothness import Smoothness as Smoothness
from cliffs.curvature._smoothness import SmoothnessFit as SmoothnessFit
from cliffs.curvature._smoothness import bootstrap_fit as bootstrap_fit
from cliffs.curvature._smoothness import fit_smoothness as fit_smoothness
from cliffs.curvature._smoothness import smoothness_along as smoothness_along
from cliffs.curvature._smoothness import smoothness_between as smoothness_between
