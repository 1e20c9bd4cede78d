//! Lets `cargo test` find libpython at run time. Must never be needed by the wheel: maturin
//! drives that build and links it by its own rules.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PYTHON").is_some() {
        pyo3_build_config::add_libpython_rpath_link_args();
    }
}
