//! `make bench-failover`: how long an application cannot write under each fault, beside Patroni and pg_auto_failover. Nothing
//! is asserted: what misses its goal says so.
//!
//! `bench-failover [--system NAME]… [--fault PART-OF-ITS-NAME]… [--runs N]`. Needs root, for the networks.

#[cfg(unix)]
fn main() -> anyhow::Result<()> {
    use anyhow::Context as _;

    let mut wanted = ha_tests::failover::Wanted::default();
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} has no value"))?;
        match flag.as_str() {
            "--system" => wanted.systems.push(value),
            "--fault" => wanted.faults.push(value),
            "--runs" => wanted.runs = Some(value.parse().context("--runs takes a number")?),
            _ => anyhow::bail!("there is no {flag}: --system, --fault, --runs"),
        }
    }
    ha_tests::failover::run(&wanted)
}

#[cfg(not(unix))]
fn main() {
    eprintln!("the benchmarks need a unix system");
    std::process::exit(1);
}
