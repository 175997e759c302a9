__version__ = "0.1.0"

import importlib

import wrapt

_WHERE = { # public name: its module
    "build_model": "models.specs",
    "list_models": "models.specs",
    "load_released": "weights.start",
}
__all__ = list(_WHERE)


def __getattr__(name):
    "The public names, from the modules that hold them, when they are needed."
    if name not in _WHERE: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


@wrapt.when_imported("keras")
def _register_layers(keras):
    "Make Keras know our layers as soon as it is there: `keras.saving.load_model` reads our files."
    importlib.import_module(f"{__name__}.models.blocks")
