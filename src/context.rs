//! A context: one device, one backend.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

pub use crate::backend::BackendKind;
use crate::backend::{Backend, RawStream};
use crate::error::{Error, Result};
use crate::events::EventPools;
use crate::extent::Extent;
use crate::lines::LinePool;
use crate::log::{log, LogLevel};
use crate::memory::Ledger;
use crate::profiler::Range;
use crate::results::ResultPool;
use crate::stream::Priority;
use crate::sync::{check_fork, watch_for_fork};
use crate::tensor::release::Releaser;
use crate::watcher::Watcher;

/// What a context is made with.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContextOptions {
    /// Backend wanted.
    pub backend: BackendKind,
    /// CUDA ordinal of the device; must be 0 on the host backend.
    pub device: u32,
    /// Most bytes of device memory that may be held at once, the mailboxes' rings included; 0 for no limit.
    pub memory_limit: u64,
    /// Percent of the device that workers may hold, of all contexts together; 0 for 50.
    pub resident_percent: u32,
}

/// Half of a device is for what comes and goes.
const RESIDENT_PERCENT: u32 = 50;

/// What is behind a context.
#[derive(Clone, Debug)]
pub struct ContextInfo {
    /// The backend in use: never `Auto`.
    pub backend: BackendKind,
    /// CUDA ordinal of the device.
    pub device: u32,
    /// The device's name.
    pub name: String,
    /// Multiprocessors, or block threads of the host backend.
    pub multiprocessors: u32,
    /// Driver version as CUDA counts it (13000 is 13.0); zero on the host.
    pub driver_version: u32,
}

/// One device, one backend. Clones share it; it ends with its last user.
///
/// ```
/// use gpumailbox::{BackendKind, Context, ContextOptions};
///
/// let context = Context::new(&ContextOptions { backend: BackendKind::Host, ..Default::default() })?;
/// assert_eq!(context.info().backend, BackendKind::Host);
/// # Ok::<(), gpumailbox::Error>(())
/// ```
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    kind: BackendKind,
    device: u32,
    resident_percent: u32,
    // What lies in the backend's memory is given back while the backend still lives.
    results: ResultPool,
    lines: LinePool,
    /// Ask whether addresses are good: `GMB_CHECK_POINTERS=1`.
    checks_pointers: bool,
    events: EventPools,
    memory: Ledger,
    watcher: Watcher,
    releaser: Releaser,
    /// Streams of the library's objects, which some of them tell: not the caller's to destroy.
    own_streams: Mutex<HashSet<usize>>,
    /// The library's own stream, for what no caller's stream should wait for.
    service: RawStream,
    backend: Box<dyn Backend>,
}

// SAFETY: the stream is a name; the backend checks it at every use.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Drop for Shared {
    fn drop(&mut self) {
        self.watcher.end();
        self.releaser.end();
        let backend = self.backend.as_ref();
        let _ = backend.stream_destroy(self.service);
        self.results.release_all(backend);
        self.lines.release_all(backend);
        self.events.release_all(backend);
        self.memory.release_all(backend);
    }
}

impl Context {
    /// Opens a device. On CUDA this retains the primary context, which
    /// PyTorch, CuPy and the CUDA runtime use too, and loads all kernels.
    ///
    /// # Errors
    /// `NO_DRIVER`, `NO_DEVICE`, `STUB_DRIVER`, `DRIVER_TOO_OLD`, `NO_KERNELS`,
    /// `INVALID_DEVICE`, `INVALID_ARGUMENT` (a bad `GMB_BACKEND`, a percentage above 100), `SYSTEM`.
    pub fn new(options: &ContextOptions) -> Result<Self> {
        let _range = Range::new(c"open a context");
        check_fork()?;
        if options.resident_percent > 100 {
            return Err(Error::argument(format!(
                "resident_percent {}: there are 100",
                options.resident_percent
            )));
        }
        watch_for_fork();
        let (kind, backend) = options.backend.open(options.device)?;
        let pooled = backend.has_pool() && !is_disabled("mempool");
        if !pooled {
            log(LogLevel::Warning, || {
                "no memory pool: memory freed in stream order goes back with a delay".to_owned()
            });
        }
        let service = backend.stream_create(Priority::Normal)?;
        log(LogLevel::Info, || format!("context on {}, device {}", backend.info().name, options.device));
        Ok(Self {
            shared: Arc::new(Shared {
                kind,
                device: options.device,
                resident_percent: match options.resident_percent {
                    0 => RESIDENT_PERCENT,
                    percent => percent,
                },
                results: ResultPool::default(),
                lines: LinePool::default(),
                checks_pointers: std::env::var("GMB_CHECK_POINTERS").is_ok_and(|value| value == "1"),
                events: EventPools::default(),
                memory: Ledger::new(options.memory_limit, pooled),
                watcher: Watcher::default(),
                releaser: Releaser::default(),
                own_streams: Mutex::default(),
                service,
                backend,
            }),
        })
    }

    /// What is behind this context.
    pub fn info(&self) -> ContextInfo {
        let info = self.backend().info();
        ContextInfo {
            backend: self.shared.kind,
            device: self.shared.device,
            name: info.name.clone(),
            multiprocessors: info.units,
            driver_version: info.driver_version,
        }
    }

    /// Percent of the device that workers may hold.
    pub(crate) fn resident_percent(&self) -> u32 {
        self.shared.resident_percent
    }

    pub(crate) fn kind(&self) -> BackendKind {
        self.shared.kind
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.shared.backend.as_ref()
    }

    /// Asks the driver something small: that keeps it moving and brings a device error to light.
    pub(crate) fn pulse(&self) -> Result<()> {
        self.backend().stream_query(self.shared.service).map(|_| ())
    }

    pub(crate) fn service(&self) -> RawStream {
        self.shared.service
    }

    pub(crate) fn own_streams(&self) -> &Mutex<HashSet<usize>> {
        &self.shared.own_streams
    }

    pub(crate) fn results(&self) -> &ResultPool {
        &self.shared.results
    }

    pub(crate) fn watcher(&self) -> &Watcher {
        &self.shared.watcher
    }

    pub(crate) fn releaser(&self) -> &Releaser {
        &self.shared.releaser
    }

    pub(crate) fn lines(&self) -> &LinePool {
        &self.shared.lines
    }

    pub(crate) fn events(&self) -> &EventPools {
        &self.shared.events
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.shared.memory
    }

    /// Whether the environment asks for that.
    pub(crate) fn checks_pointers(&self) -> bool {
        self.shared.checks_pointers
    }

    /// Where the environment asks for it: fails when kernels cannot reach the whole range.
    pub(crate) fn check_reachable(&self, range: &Extent) -> Result<()> {
        let (name, address, bytes) = range.parts();
        if !self.shared.checks_pointers || self.backend().can_reach(address, bytes)? {
            return Ok(());
        }
        Err(Error::argument(format!(
            "{name}: {bytes} bytes at {address:#x} are not all device or pinned memory of one allocation"
        )))
    }

    /// The same for contexts whose streams are each other's.
    pub(crate) fn place(&self) -> u64 {
        if self.backend().info().shares_streams {
            u64::from(self.shared.device)
        } else {
            Arc::as_ptr(&self.shared) as u64
        }
    }

    /// True when both are the same context.
    pub(crate) fn is(&self, other: &Context) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("backend", &self.shared.kind)
            .field("device", &self.shared.device)
            .finish()
    }
}

/// `GMB_DISABLE` names, with commas between, what shall be done without.
fn is_disabled(feature: &str) -> bool {
    std::env::var("GMB_DISABLE").is_ok_and(|list| list.split(',').any(|name| name.trim() == feature))
}
