// A TLS client in Node, driven by the tests.
//
// Takes its options as JSON in its first argument: those of `tls.connect` (Node's own names, with
// certificates as text), and `steps`. Prints one event a line, as JSON, and ends when its
// connection has closed. Each step waits for its event, and then acts once. Must never decide
// whether what happened is right: the test does that.

"use strict";

const tls = require("tls");

const { steps = [], session, ...options } = JSON.parse(process.argv[2]);
const told = [];
let received = 0;

function tell(event, values = {}) {
  process.stdout.write(JSON.stringify({ event, ...values }) + "\n");
  told.push(event);
  act();
}

// A step is [condition, action, value]: the condition is the name of an event, or the number of
// bytes that have come.
function act() {
  while (steps.length > 0) {
    const [condition, action, value] = steps[0];
    const due = typeof condition === "number" ? received >= condition : told.includes(condition);
    if (!due) {
      return;
    }
    steps.shift();
    if (action === "write") {
      socket.write(typeof value === "number" ? Buffer.alloc(value, "x") : value);
    } else if (action === "end") {
      socket.end();
    } else if (action === "destroy") {
      socket.destroy();
    }
  }
}

if (session) {
  options.session = Buffer.from(session, "base64");
}
const socket = tls.connect({ host: "127.0.0.1", servername: "localhost", ...options });
const parts = [];

socket.on("secureConnect", () => {
  const peer = socket.getPeerCertificate();
  tell("secure", {
    protocol: socket.getProtocol(),
    cipher: socket.getCipher().standardName,
    alpn: socket.alpnProtocol,
    resumed: socket.isSessionReused(),
    names: peer.subjectaltname,
  });
});
socket.on("session", (ticket) => tell("session", { ticket: ticket.toString("base64") }));
socket.on("data", (data) => {
  parts.push(data);
  received += data.length;
  act();
});
// By then, a socket without allowHalfOpen has ended its own side.
socket.on("end", () => setImmediate(() => tell("end")));
socket.on("error", (error) => tell("error", { code: error.code, message: error.message }));
socket.on("close", () => {
  const data = Buffer.concat(parts);
  const text = data.length <= 4096 ? data.toString("latin1") : "";
  const digest = require("crypto").createHash("sha256").update(data).digest("hex");
  tell("close", { count: data.length, text, digest });
});
