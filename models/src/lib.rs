//! Architectures and papers on the shadegrad engine.
