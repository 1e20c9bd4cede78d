//! TCP_INFO for Python: `rsock.TcpInfo`. Owns the conversion of its fields; must never call
//! getsockopt itself.

use std::mem::offset_of;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::process::object;
use crate::net::socket::TcpInfo;
use crate::net::sys::RawTcpInfo;

/// The states of RFC 9293 by the kernel's numbers (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "UNKNOWN",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "SYN-RECEIVED",
];

/// The states of congestion control by the kernel's numbers (enum tcp_ca_state of linux/tcp.h).
const CONGESTION_STATES: [&str; 5] = ["open", "disorder", "CWR", "recovery", "loss"];

/// A `rsock.TcpInfo`. Values that this kernel does not supply, or does not have yet, are None.
pub(super) fn tcp_info<'py>(py: Python<'py>, info: &TcpInfo) -> PyResult<Bound<'py, PyAny>> {
    let raw = &info.raw;
    let seconds = |micros: u32| f64::from(micros) / 1e6;
    let supplied = |offset: usize| info.length > offset;
    let state = STATES.get(usize::from(raw.state)).unwrap_or(&STATES[0]);
    let congestion = CONGESTION_STATES.get(usize::from(raw.ca_state)).unwrap_or(&"unknown");
    let send_window = supplied(offset_of!(RawTcpInfo, snd_wnd)).then_some(raw.snd_wnd);
    let receive_window = supplied(offset_of!(RawTcpInfo, rcv_wnd)).then_some(raw.rcv_wnd);
    let fields = PyDict::new(py);
    fields.set_item("state", state)?;
    fields.set_item("rtt", seconds(raw.rtt))?;
    fields.set_item("rtt_variance", seconds(raw.rttvar))?;
    // All bits are set until there is a measurement.
    fields.set_item("min_rtt", (raw.min_rtt != u32::MAX).then(|| seconds(raw.min_rtt)))?;
    fields.set_item("retransmit_timeout", seconds(raw.rto))?;
    fields.set_item("retransmits", raw.total_retrans)?;
    fields.set_item("lost", raw.lost)?;
    fields.set_item("out_of_order", raw.rcv_ooopack)?;
    fields.set_item("segments_in", raw.segs_in)?;
    fields.set_item("segments_out", raw.segs_out)?;
    fields.set_item("data_segments_in", raw.data_segs_in)?;
    fields.set_item("data_segments_out", raw.data_segs_out)?;
    fields.set_item("bytes_received", raw.bytes_received)?;
    fields.set_item("bytes_sent", raw.bytes_sent)?;
    fields.set_item("bytes_acked", raw.bytes_acked)?;
    fields.set_item("bytes_retransmitted", raw.bytes_retrans)?;
    fields.set_item("unacknowledged", raw.unacked)?;
    fields.set_item("send_mss", raw.snd_mss)?;
    fields.set_item("receive_mss", raw.rcv_mss)?;
    fields.set_item("advertised_mss", raw.advmss)?;
    fields.set_item("path_mtu", raw.pmtu)?;
    fields.set_item("send_window", send_window)?;
    fields.set_item("receive_window", receive_window)?;
    fields.set_item("receive_space", raw.rcv_space)?;
    fields.set_item("congestion_algorithm", info.algorithm.name())?;
    fields.set_item("congestion_state", congestion)?;
    fields.set_item("congestion_window", raw.snd_cwnd)?;
    fields.set_item("slow_start_threshold", raw.snd_ssthresh)?;
    fields.set_item("delivery_rate", raw.delivery_rate)?;
    object(py, "TcpInfo", &fields)
}
