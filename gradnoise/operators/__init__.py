"""The matrices of a model: Hessian, Gauss-Newton, gradients, covariance."""
