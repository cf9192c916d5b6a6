//! Splits a model into a directory as `sotto split` does, and says how much memory that took.
//!
//! ```text
//! cargo run --release -p sotto-models --example split -- MODEL DIRECTORY [plain|fused]
//! ```

use sotto_models::source::ModelSource;
use sotto_models::split::{ProtocolBinding, split_to};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(model), Some(directory)) = (args.next(), args.next()) else {
        return Err("expected a model and a directory".into());
    };
    let kind = args.next().as_deref().unwrap_or("plain").parse()?;
    let start = Instant::now();
    let source = ModelSource::open(model)?;
    if source.chat_template.is_some() {
        let known = source.template()?.known_as().unwrap_or("of no known shape");
        println!("chat template: {known}");
    }
    let protocol = ProtocolBinding { tau: 64, params_id: "example".to_owned() };
    let digest = split_to(&source, kind, directory, &protocol, |_| ())?;
    println!("{digest} in {:.1} s", start.elapsed().as_secs_f64());
    // "VmHWM:  123456 kB" on Linux.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
        println!("most memory: {}", line.trim_start_matches("VmHWM:").trim());
    }
    Ok(())
}
