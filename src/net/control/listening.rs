//! The listener of a server, as its faults have it. Owns the choice of the listener's mode; must
//! never accept a connection.
//!
//! Of several faults of accepting, the last one that was added holds. When it is removed, the one
//! before it does.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::config::Config;
use crate::net::address::Transport;
use crate::net::base::Mutex;
use crate::net::error::{Error, Result};
use crate::net::ledger::{FaultEvent, Record, Way};
use crate::net::socket::{Intake, Listener, MAX_BACKLOG, Mode, Noted, SocketOptions};
use crate::net::stage::faults::{Accepting, Fault, FaultSet, Installed};

/// The listener of one server, from listen(2) on.
pub(crate) struct Listening {
    transport: Transport,
    options: SocketOptions,
    faults: Arc<FaultSet>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Gone once the listener is closed.
    intake: Weak<Intake>,
    /// The fault that holds.
    fault: Option<Arc<Installed>>,
}

/// What the errors of a fault end with that needs a listener of its own.
const SHARED: &str = "would end the socket for its other users";

/// Whether a fault does to the socket what its other users would notice.
fn changes_socket(accepting: Accepting) -> bool {
    matches!(accepting, Accepting::Refuse | Accepting::Full)
}

/// Refuses a fault that a listener with these options cannot have.
fn check_options(fault: &Fault, transport: Transport, options: &SocketOptions) -> Result<()> {
    let refuses = fault.kind.accepting() == Some(Accepting::Refuse);
    if refuses && transport == Transport::Tcp && !options.reuse_address {
        let text = &fault.label.text;
        return Err(Error::Value(format!(
            "{text}: needs SocketOptions(reuse_address=True): without it, the port cannot be \
             listened on again while connections are open"
        )));
    }
    Ok(())
}

impl Config {
    /// Refuses faults that the server cannot have.
    pub fn check_faults(&self) -> Result<()> {
        for fault in self.faults.iter().flatten() {
            fault.check(self.transport)?;
            check_options(fault, self.transport, &self.options)?;
            if self.fd.is_some() && fault.kind.accepting().is_some_and(changes_socket) {
                let text = &fault.label.text;
                return Err(Error::Value(format!(
                    "{text}: not with a listening socket given by fd=, as it {SHARED}"
                )));
            }
        }
        Ok(())
    }
}

impl Listening {
    pub(crate) fn new(config: &Config, faults: &Arc<FaultSet>) -> Self {
        Self {
            transport: config.transport,
            options: config.options.clone(),
            faults: Arc::clone(faults),
            state: Mutex::default(),
        }
    }

    /// listen(2), in the mode that the faults ask for. A backlog of None is the system's maximum.
    /// Does nothing for datagrams, which are received from bind(2) on.
    pub(crate) fn listen(&self, listener: &Listener, backlog: Option<u32>) -> Result<()> {
        if self.transport.is_datagram() {
            return Ok(());
        }
        let backlog = backlog.unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG);
        self.attach(listener, |intake, mode| intake.listen(backlog, mode, &self.options))
    }

    /// Takes over a socket that listens already.
    pub(crate) fn take_listening(&self, listener: &Listener) -> Result<()> {
        self.attach(listener, |intake, mode| intake.change(mode, &self.options))
    }

    fn attach(
        &self,
        listener: &Listener,
        begin: impl FnOnce(&Intake, Mode) -> Result<()>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let intake = listener.intake();
        let (fault, mode) = self.wanted(intake)?;
        begin(intake, mode)?;
        *state = State { intake: Arc::downgrade(intake), fault };
        Ok(())
    }

    /// The fault that holds, and the mode that it asks for. An error if the listener cannot have
    /// it.
    fn wanted(&self, intake: &Intake) -> Result<(Option<Arc<Installed>>, Mode)> {
        let Some((installed, accepting)) = self.faults.accepting() else {
            return Ok((None, Mode::Open));
        };
        check_options(&installed.fault, self.transport, &self.options)?;
        if changes_socket(accepting) && intake.has_others() {
            let text = &installed.fault.label.text;
            return Err(Error::Value(format!(
                "{text}: the listening socket was given by fd=, or handed over, and this {SHARED}"
            )));
        }
        let holding = |time: Option<Duration>| {
            let installed = Arc::clone(&installed);
            let noted: Noted = Arc::new(move || {
                installed.fault.label.count_connection();
                installed.fault.label.count_event();
            });
            Mode::Holding(time, noted)
        };
        let mode = match accepting {
            Accepting::Refuse => Mode::Refusing,
            Accepting::Full => Mode::Full,
            Accepting::Never => holding(None),
            Accepting::Delay(time) => holding(Some(time)),
        };
        Ok((Some(installed), mode))
    }

    /// Changes the mode of the listener to what the faults ask for now. When this returns, it is in
    /// force. On an error the mode is as it was. Returns whether it has changed.
    pub(super) fn update(&self) -> Result<bool> {
        let mut state = self.state.lock();
        let Some(intake) = state.intake.upgrade() else { return Ok(false) };
        let (fault, mode) = self.wanted(&intake)?;
        let is_same = match (&fault, &state.fault) {
            (Some(new), Some(old)) => Arc::ptr_eq(new, old),
            (None, None) => true,
            _ => false,
        };
        if is_same {
            return Ok(false);
        }
        intake.change(mode, &self.options)?;
        state.fault = fault;
        Ok(true)
    }

    /// Calls `lend`, after which others use the listener. None if a fault changes the socket.
    pub(crate) fn lend<T>(&self, lend: impl FnOnce() -> T) -> Option<T> {
        let state = self.state.lock();
        let accepting = state.fault.as_ref().and_then(|one| one.fault.kind.accepting());
        (!accepting.is_some_and(changes_socket)).then(lend)
    }

    /// The number of connections that wait to be accepted; None if the kernel does not report it.
    pub(crate) fn waiting(&self) -> Option<usize> {
        let intake = self.state.lock().intake.upgrade();
        intake.map_or(Some(0), |intake| intake.waiting())
    }

    /// Notes in its record that the listener has held a connection back.
    pub(crate) fn note_held(&self, record: &Record) {
        let fault = self.state.lock().fault.clone();
        if let Some(fault) = fault {
            record.note_fault(FaultEvent {
                fault: Arc::clone(&fault.fault.label.text),
                action: "delayed",
                way: Way::Up,
                after: Duration::ZERO,
                offset: 0,
                size: 0,
            });
        }
    }
}
