//! `make bench`: prints the figures of docs/benchmarks.md as measured on this machine, each beside its goal or beside what
//! it is compared with. Nothing is asserted: a figure that misses its goal says so.
//!
//! `bench [PART…]` measures some parts only: mastership, commands, idle, scale, proxy.

#[cfg(unix)]
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    ha_tests::bench::run(&wanted).await
}

#[cfg(not(unix))]
fn main() {
    eprintln!("the benchmarks need a unix system");
    std::process::exit(1);
}
