"""Making a logit a log density ratio: calibration, its test, fitting to fixed samplers, and correction.

A model without a discriminator of its own (a VAE, a normalising flow, a GAN whose critic is vector-valued) has
two ways to a logit: fit one between data and model with `fit_log_ratio`, or take a GAN's and add a corrector's
with `corrected`. `stratified` aims each sample at a class of its own, where a discriminator names classes.
Where the model is far from the data, `fit_along_flow` fits one for the whole way between them.
"""

from logitflow.ratio.along import fit_along_flow
from logitflow.ratio.calibration import ZTest, calibrate, z_statistic
from logitflow.ratio.classes import names_classes, stratified
from logitflow.ratio.correction import corrected
from logitflow.ratio.fitting import FitRecord, cross_entropy, fit_log_ratio

__all__ = [
    "FitRecord",
    "ZTest",
    "calibrate",
    "corrected",
    "cross_entropy",
    "fit_along_flow",
    "fit_log_ratio",
    "names_classes",
    "stratified",
    "z_statistic",
]
