"""Models of real packages, each held to an autograd loop; see docs/models.md."""
