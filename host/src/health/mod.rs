//! The health port: rendering, server thread, beats, signals.
