//! TLS for Python: certificates, keys and what is chosen besides. Owns the check of its arguments;
//! must never keep a password, nor show a key.

use std::sync::Arc;
use std::time::SystemTime;

use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyMapping, PyString, PyTuple};
use rustls_pki_types::ServerName;

use super::args::{self, boolean, shown, text, wrong_type};
use super::error::exception;
use super::process::object;
use crate::net;
use crate::net::base::{Mutex, Origin, Waiter};
use crate::net::handoff::{start_tls_as_client, start_tls_as_server};
use crate::net::ledger::TlsInfo;
use crate::net::stage::tls::{
    Identity, Pem, Roots, TlsClient, TlsServer, TlsSettings, for_tests, server_name, system_roots,
};

/// The longest name of a protocol, and the longest list of them (RFC 7301).
const MOST_ALPN: usize = 255;
const MOST_ALPNS: usize = 65_535;

/// Certificates and keys for TLS, and what is accepted from the peer.
///
/// `Server(tls=TLS(cert, key))` serves TLS, `Client(tls=TLS(ca=…))` connects by TLS. A file is given
/// by its path, as str or os.PathLike; bytes are the content itself. Everything is PEM (RFC 7468).
///
/// `cert`: the own certificate, followed by those of the authorities between it and the root.
/// `key`: its private key; None looks for it in `cert`. RSA, ECDSA (P-256, P-384) or Ed25519.
/// `password`: of an encrypted key, as str or bytes.
/// `ca`: certificates of authorities that a client trusts, in place of those of the system.
/// `client_ca`: those by which a server verifies the certificates of clients; None asks for none.
/// `require_client_cert`: whether a client without a certificate is refused.
/// `alpn`: names of protocols, the preferred one first, such as `["h2", "http/1.1"]` (RFC 7301).
/// `sni`: other certificates of a server, by the name that the client asks for (RFC 6066): a dict
/// of names to pairs `(cert, key)` or to TLS objects. `*.example.org` stands for any one label.
/// `min_version`: "1.2" or "1.3".
/// `server_hostname`: the name that a client verifies, in place of the host that it connects to.
///
/// The object is frozen. Which of these belong to a server and which to a client is checked where
/// it is used. Reads the files, and raises the OSError of one that cannot be read; ValueError,
/// naming the argument and the path, for one that is not PEM or has nothing in it, for a key that
/// does not belong to the certificate, or that is encrypted and has no password.
#[pyclass(frozen, module = "rsock._rsock", name = "TLS")]
pub(super) struct Tls {
    settings: TlsSettings,
    /// The arguments that only a client has, and those that only a server has, as given.
    of_client: Vec<&'static str>,
    of_server: Vec<&'static str>,
    /// What `for_tests` has made.
    tests: Option<TestPem>,
    label: String,
    /// What clients share, which includes the sessions that they resume.
    client: Mutex<Option<(Origin, TlsClient)>>,
    /// What accepted connections share that begin TLS by `start_tls`.
    server: Mutex<Option<(Origin, Arc<TlsServer>)>>,
}

struct TestPem {
    ca: String,
    cert: String,
    key: String,
}

/// The content of an argument: a file, or bytes.
fn pem(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Pem> {
    let py = value.py();
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Pem { name: format!("{name}=bytes"), bytes: bytes.as_bytes().to_vec() });
    }
    let is_path = value.is_instance_of::<PyString>() || value.hasattr("__fspath__")?;
    if !is_path {
        return Err(wrong_type(name, "a path, or PEM as bytes", value));
    }
    if let Ok(text) = value.extract::<String>() {
        if text.contains("-----BEGIN") {
            return Err(PyValueError::new_err(format!(
                "{name}: PEM itself is given as bytes; a str is the path of a file"
            )));
        }
    }
    // Python's own errors have the name of the file.
    let file = py.import("io")?.call_method1("open", (value, "rb"))?;
    let content = file.call_method0("read");
    file.call_method0("close")?;
    let path = py.import("os")?.call_method1("fspath", (value,))?;
    Ok(Pem { name: format!("{name}={}", path.repr()?), bytes: content?.extract()? })
}

fn identity(
    cert: &Bound<'_, PyAny>,
    key: Option<&Bound<'_, PyAny>>,
    password: Option<&[u8]>,
    prefix: &str,
) -> PyResult<Identity> {
    let cert_pem = pem(&format!("{prefix}cert"), cert)?;
    let key_pem = key.map(|key| pem(&format!("{prefix}key"), key)).transpose()?;
    Identity::new(&cert_pem, key_pem.as_ref(), password)
        .map_err(|error| exception(cert.py(), error))
}

fn roots(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Roots> {
    TlsSettings::roots(&pem(name, value)?).map_err(|error| exception(value.py(), error))
}

fn alpn(value: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Vec<u8>>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let wanted = "a list of names of protocols";
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return Err(wrong_type("alpn", wanted, value));
    }
    let mut names = Vec::new();
    for name in value.try_iter().map_err(|_| wrong_type("alpn", wanted, value))? {
        let name = name?;
        let bytes = match name.cast::<PyBytes>() {
            Ok(bytes) => bytes.as_bytes().to_vec(),
            Err(_) => text("alpn", &name)?.into_bytes(),
        };
        if bytes.is_empty() || bytes.len() > MOST_ALPN {
            return Err(PyValueError::new_err(format!(
                "alpn {}: a name has 1 to {MOST_ALPN} bytes",
                shown(&name)
            )));
        }
        names.push(bytes);
    }
    let size: usize = names.iter().map(|name| 1 + name.len()).sum();
    if size > MOST_ALPNS {
        return Err(PyValueError::new_err(format!(
            "alpn: {size} bytes of names, where a handshake has room for {MOST_ALPNS}"
        )));
    }
    Ok(names)
}

fn sni(value: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<(String, Identity)>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let wanted = "a dict of names to pairs (cert, key), or to TLS objects";
    let given = value.cast::<PyMapping>().map_err(|_| wrong_type("sni", wanted, value))?;
    let mut named = Vec::new();
    for item in given.items()?.iter() {
        let (name, own) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        let shown_name = shown(&name);
        let name = text("sni", &name)?.to_ascii_lowercase();
        let plain = name.strip_prefix("*.").unwrap_or(&name);
        if plain.parse::<std::net::IpAddr>().is_ok() || server_name(plain).is_none() {
            return Err(PyValueError::new_err(format!(
                "sni {shown_name}: not the name of a host; a client asks for no other"
            )));
        }
        let own = if let Ok(tls) = own.cast::<Tls>() {
            tls.get().settings.identity.clone().ok_or_else(|| {
                PyValueError::new_err(format!("sni {shown_name}: a TLS without a certificate"))
            })?
        } else if let Ok((cert, key)) = own.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>() {
            identity(&cert, Some(&key), None, &format!("sni {shown_name}: "))?
        } else {
            return Err(wrong_type("sni", wanted, &own));
        };
        named.push((name, own));
    }
    Ok(named)
}

/// The argument `server_hostname`.
fn certified_name(value: &Bound<'_, PyAny>) -> PyResult<ServerName<'static>> {
    server_name(&text("server_hostname", value)?).ok_or_else(|| {
        PyValueError::new_err(format!(
            "server_hostname {}: not a name that a certificate can have",
            shown(value)
        ))
    })
}

fn only_newest(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    match text("min_version", value)?.as_str() {
        "1.2" => Ok(false),
        "1.3" => Ok(true),
        _ => Err(PyValueError::new_err(format!(
            "min_version {}: must be '1.2' or '1.3'; older ones are not spoken",
            shown(value)
        ))),
    }
}

#[pymethods]
impl Tls {
    #[new]
    #[pyo3(signature = (cert=None, key=None, *, password=None, ca=None, client_ca=None,
        require_client_cert=None, alpn=None, sni=None, min_version=None, server_hostname=None),
        text_signature = "(cert=None, key=None, *, password=None, ca=None, client_ca=None, \
        require_client_cert=False, alpn=(), sni=None, min_version='1.2', server_hostname=None)")]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn new(
        cert: Option<Bound<'_, PyAny>>,
        key: Option<Bound<'_, PyAny>>,
        password: Option<Bound<'_, PyAny>>,
        ca: Option<Bound<'_, PyAny>>,
        client_ca: Option<Bound<'_, PyAny>>,
        require_client_cert: Option<Bound<'_, PyAny>>,
        alpn: Option<Bound<'_, PyAny>>,
        sni: Option<Bound<'_, PyAny>>,
        min_version: Option<Bound<'_, PyAny>>,
        server_hostname: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let password = password.map(|password| args::octets("password", &password)).transpose()?;
        if cert.is_none() && (key.is_some() || password.is_some()) {
            let name = if key.is_some() { "key" } else { "password" };
            return Err(PyTypeError::new_err(format!("TLS({name}=…) needs cert=… too")));
        }
        let require_client_cert = args::flag("require_client_cert", require_client_cert.as_ref())?;
        if require_client_cert && client_ca.is_none() {
            return Err(PyValueError::new_err(
                "require_client_cert=True needs client_ca=…, the authorities that sign them",
            ));
        }
        let given = |name: &'static str, is_given: bool| is_given.then_some(name);
        let of_client =
            [given("ca", ca.is_some()), given("server_hostname", server_hostname.is_some())];
        let of_server = [given("client_ca", client_ca.is_some()), given("sni", sni.is_some())];
        let own = cert.as_ref().map(|cert| identity(cert, key.as_ref(), password.as_deref(), ""));
        let label = cert.as_ref().filter(|cert| !cert.is_instance_of::<PyBytes>()).map(shown);
        let name = server_hostname.map(|name| certified_name(&name));
        let settings = TlsSettings {
            identity: own.transpose()?,
            sni: self::sni(sni.as_ref())?,
            ca: ca.map(|ca| roots("ca", &ca)).transpose()?,
            client_ca: client_ca.map(|ca| roots("client_ca", &ca)).transpose()?,
            require_client_cert,
            alpn: self::alpn(alpn.as_ref())?,
            only_newest: min_version.map_or(Ok(false), |version| self::only_newest(&version))?,
            server_hostname: name.transpose()?,
        };
        Ok(Self {
            settings,
            of_client: of_client.into_iter().flatten().collect(),
            of_server: of_server.into_iter().flatten().collect(),
            tests: None,
            label: label.unwrap_or_default(),
            client: Mutex::new(None),
            server: Mutex::new(None),
        })
    }

    /// Make an authority and a certificate in memory, for tests.
    ///
    /// The certificate is valid for `names`, host names and addresses, and for both roles: the same
    /// object serves `Server(tls=…)` and `Client(tls=…)`, and a server's `client()` uses it too.
    /// Other clients trust `ca_pem`. With `require_client_cert`, clients have to show the
    /// certificate. Blocks for about a millisecond. Raises ValueError for a name that no certificate
    /// can have.
    #[staticmethod]
    #[pyo3(signature = (names=None, *, alpn=None, min_version=None, require_client_cert=None),
        text_signature = "(names=('localhost', '127.0.0.1'), *, alpn=(), min_version='1.2', \
        require_client_cert=False)")]
    fn for_tests(
        py: Python<'_>,
        names: Option<Bound<'_, PyAny>>,
        alpn: Option<Bound<'_, PyAny>>,
        min_version: Option<Bound<'_, PyAny>>,
        require_client_cert: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let names = match names {
            None => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            Some(given) => {
                let wanted = "a list of host names and addresses";
                if given.is_instance_of::<PyString>() {
                    return Err(wrong_type("names", wanted, &given));
                }
                let each = given.try_iter().map_err(|_| wrong_type("names", wanted, &given))?;
                each.map(|name| text("names", &name?)).collect::<PyResult<_>>()?
            }
        };
        if names.is_empty() {
            return Err(PyValueError::new_err("names: a certificate is for one name at least"));
        }
        let require = args::flag("require_client_cert", require_client_cert.as_ref())?;
        let made = for_tests(&names).map_err(|error| exception(py, error))?;
        let settings = TlsSettings {
            identity: Some(made.identity),
            ca: Some(made.ca.clone()),
            client_ca: require.then_some(made.ca),
            require_client_cert: require,
            alpn: self::alpn(alpn.as_ref())?,
            only_newest: min_version.map_or(Ok(false), |version| self::only_newest(&version))?,
            ..TlsSettings::default()
        };
        Ok(Self {
            settings,
            of_client: Vec::new(),
            of_server: Vec::new(),
            tests: Some(TestPem { ca: made.ca_pem, cert: made.cert_pem, key: made.key_pem }),
            label: format!("for tests, {}", names.join(", ")),
            client: Mutex::new(None),
            server: Mutex::new(None),
        })
    }

    /// Whether `for_tests` has made it: clients of its server can use it too. For the Python half.
    #[getter]
    fn _for_tests(&self) -> bool {
        self.tests.is_some()
    }

    /// Until when the own certificates are valid, in seconds since 1970; None where there are none.
    /// For the Python half.
    #[getter]
    fn _expiry(&self) -> Option<u64> {
        self.settings.validity().map(|(_, until)| until)
    }

    /// What is wrong now with the own certificates, a list of sentences. For the Python half.
    fn _faults(&self) -> Vec<String> {
        self.settings.faults(SystemTime::now())
    }

    /// The certificate of the authority in PEM. Only of `for_tests`; else AttributeError.
    #[getter]
    fn ca_pem(&self) -> PyResult<&str> {
        self.of_tests("ca_pem").map(|pem| &*pem.ca)
    }

    /// The certificate in PEM. Only of `for_tests`; else AttributeError.
    #[getter]
    fn cert_pem(&self) -> PyResult<&str> {
        self.of_tests("cert_pem").map(|pem| &*pem.cert)
    }

    /// The private key in PEM. Only of `for_tests`; else AttributeError.
    #[getter]
    fn key_pem(&self) -> PyResult<&str> {
        self.of_tests("key_pem").map(|pem| &*pem.key)
    }

    /// Return an `ssl.SSLContext` for clients, which trusts the authority. Only of `for_tests`.
    ///
    /// It verifies the host's name, offers `alpn`, and shows the certificate where
    /// `require_client_cert` is set. Each call makes another one. Of other objects it raises
    /// AttributeError.
    fn client_context<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pem = self.of_tests("client_context")?;
        let ssl = py.import("ssl")?;
        let options = PyDict::new(py);
        options.set_item("cadata", &pem.ca)?;
        let context = ssl.call_method("create_default_context", (), Some(&options))?;
        if self.settings.only_newest {
            let newest = ssl.getattr("TLSVersion")?.getattr("TLSv1_3")?;
            context.setattr("minimum_version", newest)?;
        }
        if !self.settings.alpn.is_empty() {
            let names = self.settings.alpn.iter().map(|name| PyBytes::new(py, name));
            let names = names.map(|name| name.call_method1("decode", ("latin-1",)));
            context.call_method1("set_alpn_protocols", (names.collect::<PyResult<Vec<_>>>()?,))?;
        }
        if self.settings.require_client_cert {
            load_chain(&context, &format!("{}{}", pem.cert, pem.key))?;
        }
        Ok(context)
    }

    fn __repr__(&self) -> String {
        format!("<TLS {}>", if self.label.is_empty() { "in memory" } else { &*self.label })
    }
}

impl Tls {
    fn of_tests(&self, name: &str) -> PyResult<&TestPem> {
        self.tests.as_ref().ok_or_else(|| {
            PyAttributeError::new_err(format!("{name}: only of an object of TLS.for_tests()"))
        })
    }

    /// The settings for a server; ValueError where they are those of a client.
    pub(super) fn for_server(&self) -> PyResult<&TlsSettings> {
        if let Some(name) = self.of_client.first() {
            let hint =
                if *name == "ca" { "; a server verifies clients by client_ca=…" } else { "" };
            return Err(PyValueError::new_err(format!("TLS({name}=…) is for clients{hint}")));
        }
        Ok(&self.settings)
    }

    /// The TLS of clients; ValueError where the settings are those of a server.
    pub(super) fn for_client(&self, py: Python<'_>) -> PyResult<TlsClient> {
        if let Some(name) = self.of_server.first() {
            let hint =
                if *name == "client_ca" { "; a client verifies servers by ca=…" } else { "" };
            return Err(PyValueError::new_err(format!("TLS({name}=…) is for servers{hint}")));
        }
        shared(&self.client, || TlsClient::new(&self.settings, || system(py)))
            .map_err(|error| exception(py, error))
    }

    /// The TLS of accepted connections that begin it by `start_tls`.
    fn for_connections(&self, py: Python<'_>) -> PyResult<Arc<TlsServer>> {
        let settings = self.for_server()?;
        shared(&self.server, || TlsServer::new(settings).map(Arc::new))
            .map_err(|error| exception(py, error))
    }
}

/// What this process shares, made with the first use. The child of a fork has locks of its own, and
/// so sessions of its own.
fn shared<T: Clone>(
    place: &Mutex<Option<(Origin, T)>>,
    make: impl FnOnce() -> net::error::Result<T>,
) -> net::error::Result<T> {
    let here = place.lock().clone().filter(|(origin, _)| origin.is_here());
    if let Some((_, made)) = here {
        return Ok(made);
    }
    let made = make()?;
    let before = place.lock().replace((Origin::here(), made.clone()));
    if let Some(foreign) = before.filter(|(origin, _)| !origin.is_here()) {
        // Another process's, and only memory here.
        std::mem::forget(foreign);
    }
    Ok(made)
}

/// TLS for a connection that is in use, by the role that it has there.
pub(super) enum Upgrade {
    Server(Arc<TlsServer>),
    Client(TlsClient, Option<ServerName<'static>>),
}

impl Upgrade {
    /// The arguments of `start_tls`.
    pub(super) fn new(
        py: Python<'_>,
        is_server: bool,
        tls: Option<&Bound<'_, PyAny>>,
        server_hostname: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        if !is_server {
            let name = server_hostname.map(certified_name).transpose()?;
            let truth = PyBool::new(py, true);
            let client = of_client(Some(tls.unwrap_or(truth.as_any())))?;
            let client = client.ok_or_else(|| {
                PyValueError::new_err("start_tls(False): a TLS, or True for the system's roots")
            })?;
            return Ok(Self::Client(client, name));
        }
        if server_hostname.is_some() {
            return Err(PyValueError::new_err(
                "start_tls(server_hostname=…) is for clients; a server has the names of its \
                 certificate",
            ));
        }
        let given = tls.map(|tls| {
            tls.cast::<Tls>().map_err(|_| wrong_type("tls", "a TLS with a certificate", tls))
        });
        let Some(tls) = given.transpose()? else {
            return Err(PyTypeError::new_err(
                "start_tls() of a server's connection needs a certificate: start_tls(TLS(cert, key))",
            ));
        };
        tls.get().for_connections(py).map(Self::Server)
    }

    /// Begins TLS, and waits for the end of the handshake.
    pub(super) fn start(
        self,
        stream: &net::stream::Stream,
        waiter: &mut dyn Waiter,
    ) -> net::error::Result<()> {
        match self {
            Self::Server(tls) => start_tls_as_server(stream, &tls, waiter),
            Self::Client(tls, name) => start_tls_as_client(stream, &tls, name, waiter),
        }
    }
}

/// Loads a certificate and its key into an `ssl.SSLContext`, which takes the path of a file only.
fn load_chain(context: &Bound<'_, PyAny>, pem: &str) -> PyResult<()> {
    let py = context.py();
    let os = py.import("os")?;
    // A file in memory: the key does not reach a disk.
    let fd = os.call_method1("memfd_create", ("rsock",))?;
    let loaded = (|| {
        os.call_method1("write", (&fd, pem.as_bytes()))?;
        context.call_method1("load_cert_chain", (format!("/proc/self/fd/{fd}"),))
    })();
    os.call_method1("close", (&fd,))?;
    loaded.map(drop)
}

/// The roots of the system, read once.
fn system(py: Python<'_>) -> net::error::Result<Roots> {
    static ROOTS: PyOnceLock<Roots> = PyOnceLock::new();
    ROOTS.get_or_try_init(py, system_roots).cloned()
}

/// The argument `tls` of a server; None for clear text.
pub(super) fn of_server(
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<(Arc<TlsServer>, Py<Tls>)>> {
    let Some(value) = value else { return Ok(None) };
    let wanted = "a TLS; TLS.for_tests() makes one for tests";
    let tls = value.cast::<Tls>().map_err(|_| wrong_type("tls", wanted, value))?;
    let made =
        TlsServer::new(tls.get().for_server()?).map_err(|error| exception(value.py(), error))?;
    Ok(Some((Arc::new(made), tls.clone().unbind())))
}

/// The argument `tls` of a script, for its steps that begin TLS.
pub(super) fn of_script(value: &Bound<'_, PyAny>) -> PyResult<Arc<TlsServer>> {
    let wanted = "a TLS with a certificate";
    let tls = value.cast::<Tls>().map_err(|_| wrong_type("tls", wanted, value))?;
    tls.get().for_connections(value.py())
}

/// The argument `tls` of a client; None for clear text.
pub(super) fn of_client(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<TlsClient>> {
    let Some(value) = value else { return Ok(None) };
    let py = value.py();
    if let Ok(tls) = value.cast::<Tls>() {
        return tls.get().for_client(py).map(Some);
    }
    if !value.is_instance_of::<PyBool>() {
        return Err(wrong_type("tls", "True, False or a TLS", value));
    }
    if !boolean("tls", value)? {
        return Ok(None);
    }
    static SYSTEM: PyOnceLock<Py<Tls>> = PyOnceLock::new();
    let shared = SYSTEM.get_or_try_init(py, || {
        Py::new(
            py,
            Tls {
                settings: TlsSettings::default(),
                of_client: Vec::new(),
                of_server: Vec::new(),
                tests: None,
                label: String::new(),
                client: Mutex::new(None),
                server: Mutex::new(None),
            },
        )
    })?;
    shared.get().for_client(py).map(Some)
}

/// The `rsock.TlsInfo` of a record.
pub(super) fn info<'py>(py: Python<'py>, info: &TlsInfo) -> PyResult<Bound<'py, PyAny>> {
    let fields = pyo3::types::PyDict::new(py);
    fields.set_item("version", info.version)?;
    fields.set_item("cipher", &info.cipher)?;
    fields.set_item("sni", info.sni.as_deref())?;
    fields.set_item("alpn", info.alpn.as_deref())?;
    fields.set_item("resumed", info.resumed)?;
    let peer = info.peer.as_ref().map(|peer| {
        let own = pyo3::types::PyDict::new(py);
        own.set_item("der", PyBytes::new(py, &peer.der))?;
        own.set_item("subject", &peer.subject)?;
        own.set_item("names", PyTuple::new(py, &peer.names)?)?;
        object(py, "Certificate", &own)
    });
    fields.set_item("peer", peer.transpose()?)?;
    object(py, "TlsInfo", &fields)
}
