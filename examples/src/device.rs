//! Which device the network runs on.

use std::fs;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use unet_burn::burn::tensor::wgpu::WgpuBackend;
use unet_burn::burn::tensor::{Device, DeviceKind};

/// The choice on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceChoice {
    /// A real GPU if there is one, else the CPU.
    Auto,
    /// The best adapter of wgpu, on any graphics API (software adapters included).
    Wgpu,
    /// The best Vulkan adapter.
    Vulkan,
    /// Apple's GPUs, through wgpu.
    Metal,
    /// NVIDIA's own interface: not in this build, use vulkan.
    Cuda,
    /// The CPU (burn's flex backend).
    Cpu,
}

/// A device and its name for the records.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The device.
    pub device: Device,
    /// Kind and name in words.
    pub name: String,
    /// Kind and name of what decides the last bits of a result: on the CPU its instructions, not its threads.
    pub identity: String,
}

impl Chosen {
    /// Memory that the device has free, where it is known: on the CPU what the system has left for this process (Linux:
    /// also within the limit of its control group). Graphics interfaces do not tell.
    #[must_use]
    pub fn free_bytes(&self) -> Option<u64> {
        if self.device != Device::flex() {
            return None;
        }
        let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        // cgroup v2, as containers see their own; what it caches of files it gives up.
        let cached = || {
            let statistics = fs::read_to_string("/sys/fs/cgroup/memory.stat").ok()?;
            statistics.lines().find_map(|line| line.strip_prefix("inactive_file "))?.parse::<u64>().ok()
        };
        let used = || number("/sys/fs/cgroup/memory.current")?.checked_sub(cached().unwrap_or(0));
        let limit =
            number("/sys/fs/cgroup/memory.max").map(|limit| limit.saturating_sub(used().unwrap_or(0)));
        Some((kibibytes * 1024).min(limit.unwrap_or(u64::MAX)))
    }
}

/// Memory in words.
pub(crate) fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Opens the device, and says in one line which one it is.
///
/// # Errors
///
/// When the device that was asked for by name is not there or not in this build.
pub fn open(choice: DeviceChoice) -> Result<Chosen> {
    let chosen = choose(choice)?;
    tracing::info!("the network runs on {}", chosen.name);
    Ok(chosen)
}

fn choose(choice: DeviceChoice) -> Result<Chosen> {
    match choice {
        DeviceChoice::Cpu => cpu(),
        DeviceChoice::Auto => first_gpu().map_or_else(cpu, Ok),
        DeviceChoice::Wgpu => adapter(DeviceKind::DefaultDevice, WgpuBackend::Auto),
        DeviceChoice::Vulkan => adapter(DeviceKind::DefaultDevice, WgpuBackend::Vulkan),
        DeviceChoice::Metal if cfg!(target_os = "macos") => {
            adapter(DeviceKind::DefaultDevice, WgpuBackend::Auto)
        }
        DeviceChoice::Metal => bail!("--device metal needs macOS: use auto, vulkan or cpu"),
        DeviceChoice::Cuda => bail!("--device cuda is not in this build: use vulkan for NVIDIA GPUs"),
    }
}

/// Opens several devices for training: the first discrete graphics cards.
///
/// On the CPU they share its threads: of use for trying the program only.
///
/// # Errors
///
/// As [`open`], and when there are fewer graphics cards.
pub fn open_several(choice: DeviceChoice, count: usize) -> Result<Vec<Chosen>> {
    if count <= 1 {
        return Ok(vec![open(choice)?]);
    }
    // A card of its own choice is opened by its number only.
    if !matches!(choice, DeviceChoice::Wgpu | DeviceChoice::Vulkan) {
        let first = choose(choice)?;
        if first.device == Device::flex() {
            tracing::info!("the network runs on {}, {count} times", first.name);
            return Ok(vec![first; count]);
        }
    }
    let api = if choice == DeviceChoice::Vulkan { WgpuBackend::Vulkan } else { WgpuBackend::Auto };
    let card = |number: usize| {
        let chosen = adapter(DeviceKind::DiscreteGpu(number), api)
            .with_context(|| format!("--devices {count} needs as many discrete graphics cards"))?;
        tracing::info!("the network runs on {}", chosen.name);
        Ok(chosen)
    };
    (0..count).map(card).collect()
}

fn cpu() -> Result<Chosen> {
    let instructions = unet_burn::cpu_instructions()?;
    let name = format!("cpu, {} threads", rayon::current_num_threads());
    let identity = format!("cpu, {instructions}");
    Ok(Chosen { device: Device::flex(), name, identity })
}

/// The first adapter that is hardware: discrete before integrated before virtual.
fn first_gpu() -> Option<Chosen> {
    let kinds = [DeviceKind::DiscreteGpu(0), DeviceKind::IntegratedGpu(0), DeviceKind::VirtualGpu(0)];
    kinds.into_iter().find_map(|kind| adapter(kind, WgpuBackend::Auto).ok())
}

/// Opens an adapter, once: burn takes its options only before the first use.
fn adapter(kind: DeviceKind, api: WgpuBackend) -> Result<Chosen> {
    type Opened = ((DeviceKind, WgpuBackend), Chosen);
    static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (kind.clone(), api);
    if let Some((_, chosen)) = opened.iter().find(|(other, _)| *other == key) {
        return Ok(chosen.clone());
    }
    match Device::wgpu_options().device_kind(kind).graphics_api(api).init() {
        Ok(device) => {
            let adapter =
                device.identity().map_or_else(|| "unnamed adapter".into(), |identity| identity.name);
            let name = format!("wgpu, {adapter}");
            let chosen = Chosen { device, identity: name.clone(), name };
            opened.push((key, chosen.clone()));
            Ok(chosen)
        }
        Err(error) => bail!("no graphics adapter can be used ({error}): use --device cpu"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_device_opens_again_and_several_need_as_many_cards() {
        assert_eq!(open_several(DeviceChoice::Cpu, 3).unwrap().len(), 3, "the CPU shares its threads");
        match open(DeviceChoice::Wgpu) {
            Ok(first) => assert_eq!(open(DeviceChoice::Wgpu).unwrap().name, first.name, "again"),
            Err(error) => drop(writeln!(std::io::stderr(), "skipped: no graphics adapter ({error})")),
        }
        match choose(DeviceChoice::Vulkan) {
            Err(error) => drop(writeln!(std::io::stderr(), "skipped: no Vulkan adapter ({error})")),
            Ok(_) => {
                let error = format!("{:#}", open_several(DeviceChoice::Vulkan, 200).unwrap_err());
                assert!(
                    error.starts_with("--devices 200 needs as many discrete graphics cards: "),
                    "{error}"
                );
                assert!(!error.contains("already initialized"), "a card is not opened twice: {error}");
            }
        }
        let error = open_several(DeviceChoice::Cuda, 2).unwrap_err().to_string();
        assert!(error.contains("not in this build"), "{error}");
    }
}
