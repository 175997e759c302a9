__version__ = "0.1.0"

from edgetpu_repro.models.specs import build_model, list_models

__all__ = ["build_model", "list_models"]
