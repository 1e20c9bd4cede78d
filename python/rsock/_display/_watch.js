// The live view of a server. It asks while it can be seen, one question at a time, and shows what it is
// answered. It must never put what a peer sent into the page as markup.

const PERIOD = 500;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function button(text, label, act) {
  const made = element("button", text);
  made.type = "button";
  made.title = label;
  made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

function rate(value) {
  if (value >= 1e6) return (value / 1e6).toFixed(1) + " M";
  if (value >= 1e4) return (value / 1e3).toFixed(1) + " k";
  return value.toFixed(value < 10 && value > 0 ? 1 : 0);
}

const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

// Red, green, blue and opacity, from 0 to 255, of a colour in any notation.
function pixel(colour) {
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data;
}

function bright([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 127;
}

// "light" or "dark": what is behind an element. The theme of a notebook is not always that of the system, each
// program marks its theme in its own way, and some give a widget a ground of another colour than the page's.
function scheme(element) {
  // A shadow tree has no parent, but a host.
  for (let at = element; at; at = at.parentNode || at.host) {
    if (!(at instanceof Element)) continue;
    const ground = pixel(getComputedStyle(at).backgroundColor);
    if (ground[3] > 127) return bright(ground) ? "light" : "dark";
  }
  // The page shows what is behind its frame. Its text is of the other kind.
  return bright(pixel(getComputedStyle(element.parentElement || element).color)) ? "dark" : "light";
}

function render({ model, el }) {
  const root = element("section", undefined, "rsock-watch");
  root.setAttribute("aria-label", "Live view of a server");
  const title = element("strong");
  const state = element("span", "", "muted");
  const drain = button("drain", "Drain: accept no more, and stop", () => send({ act: "drain" }));
  const header = element("header");
  header.append(title, state, drain);

  const figures = element("div", undefined, "figures");
  const figure = (name) => {
    const box = element("div");
    const value = element("b", "–");
    box.append(value, element("span", name, "muted"));
    figures.append(box);
    return value;
  };
  const open = figure("open");
  const accepted = figure("accepted");
  const connections = figure("connections/s");
  const messages = figure("reads and writes/s");
  const octets = figure("bytes/s");
  const rtt = figure("round trip");

  const faults = element("div", undefined, "faults");
  const form = element("form");
  const text = element("input");
  text.placeholder = "latency:0.2";
  text.setAttribute("aria-label", "A fault, such as latency:0.2");
  const add = element("button", "add fault");
  form.append(text, add);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send({ act: "fault", fault: text.value || text.placeholder });
  });

  const table = element("table");
  const scroll = element("div", undefined, "scroll");
  scroll.append(table);
  const more = element("div", "", "muted");
  const alert = element("div", "");
  alert.setAttribute("role", "alert");
  root.append(header, figures, form, faults, scroll, more, alert);
  el.append(root);

  let before = null;
  let asked = false;
  let ended = false;
  let seen = true;
  let timer = null;
  let waiting = 0;

  function send(message) {
    asked = true;
    waiting = 0;
    model.send(message);
  }

  function tick() {
    // A tab of JupyterLab that is behind another one has no box.
    if (!seen || document.hidden || !root.getClientRects().length) return;
    root.dataset.scheme = scheme(root);
    if (ended) return;
    // A kernel that is busy answers later; it is asked again after ten seconds.
    if (asked && ++waiting < 20) return;
    send({ act: "ask" });
  }

  function show(now) {
    asked = false;
    // The error of a button stays until the next button.
    if (now.act !== "ask" || now.error) alert.textContent = now.error;
    if (!now.rows) return;
    title.textContent = now.name === now.address ? now.address : `${now.name}, ${now.address}`;
    state.textContent = `${now.state}, ${now.service}`;
    ended = now.state === "stopped";
    drain.disabled = add.disabled = now.state !== "serving";
    messages.nextSibling.textContent = `${now.calls}/s`;
    open.textContent = now.open.toLocaleString("en");
    accepted.textContent = now.accepted.toLocaleString("en");
    rtt.textContent = now.rtt || "–";
    if (before && now.time > before.time) {
      const span = now.time - before.time;
      connections.textContent = rate((now.accepted - before.accepted) / span);
      messages.textContent = rate((now.messages - before.messages) / span);
      octets.textContent = rate((now.octets - before.octets) / span);
    }
    before = now;
    rows(now);
    more.textContent = [
      now.hidden ? `… and ${now.hidden.toLocaleString("en")} more open` : "",
      now.ended.length ? `ended last: ${now.ended.join("; ")}` : "",
    ].filter(Boolean).join(" · ");
    faults.replaceChildren(...now.faults.map((fault) => {
      const line = element("div");
      const remove = () => send({ act: "remove", number: fault.number });
      line.append(
        element("code", fault.text),
        element("span", fault.counts, "muted"),
        button("remove", `Remove the fault ${fault.text}`, remove),
      );
      return line;
    }));
  }

  function rows(now) {
    // The focus stays on the button of the same connection.
    // (marimo puts a view into a shadow tree, whose focus the document does not know.)
    const active = root.getRootNode().activeElement;
    const focused = table.contains(active) ? active.dataset.id : null;
    const head = element("tr");
    for (const name of ["id", "peer", "open for", "in", "out", "round trip", ""]) {
      const heading = element("th", name);
      heading.scope = "col";
      head.append(heading);
    }
    const body = now.rows.map((row) => {
      const line = element("tr");
      for (const name of ["id", "peer", "open", "in", "out", "rtt"]) {
        line.append(element("td", String(row[name])));
      }
      const last = element("td");
      const close = button("close", `Close connection ${row.id}`, () => send({ act: "close", id: row.id }));
      close.dataset.id = row.id;
      last.append(close);
      line.append(last);
      return line;
    });
    table.replaceChildren(...(body.length ? [head, ...body] : []));
    if (focused) table.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  }

  const watcher = new IntersectionObserver((entries) => {
    seen = entries[entries.length - 1].isIntersecting;
    if (seen) tick();
  });
  watcher.observe(root);
  model.on("msg:custom", show);
  timer = setInterval(tick, PERIOD);
  tick();
  return () => {
    clearInterval(timer);
    watcher.disconnect();
    model.off("msg:custom", show);
  };
}

export default { render };
