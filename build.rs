//! Lets `cargo test` find libpython at run time. Owns that linker argument only; must never be
//! needed by the wheel, which maturin links by its own rules.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PYTHON").is_some() {
        pyo3_build_config::add_libpython_rpath_link_args();
    }
}
