// A picture with axes on a canvas, and a handle over it. Everything shown comes from `view`, computed by cliffs.
const FONT = '12px system-ui, "Segoe UI", Roboto, sans-serif';
const THEMES = {
  false: { ink: "#14181d", soft: "#4d5763", grid: "#e3e7ec", card: "#ffffff", focus: "#0066ab" },
  true: { ink: "#eef1f5", soft: "#a8b2be", grid: "#2b333d", card: "#171b22", focus: "#5cb8f0" },
};

function render({ model, el }) {
  const root = make("div", { class: "pad" });
  const picture = root.appendChild(make("div", { class: "picture" }));
  const canvas = picture.appendChild(make("canvas", {}));
  const handle = picture.appendChild(make("div", { class: "handle", tabindex: "0", role: "slider" }));
  const key = root.appendChild(make("ul", { class: "key" }));
  const replay = root.appendChild(make("div", { class: "replay" }));
  const button = replay.appendChild(make("button", { type: "button" }, "Replay"));
  const scrub = replay.appendChild(make("input", { type: "range", min: "0", step: "1", "aria-label": "update shown" }));
  const told = replay.appendChild(make("output", {}));
  el.appendChild(root);

  let view = model.get("view"), point = [...model.get("point")];
  let shown = Infinity, playing = 0, frame = 0, sent = 0, waiting = 0, width = 0, height = 0;
  const margin = { left: 62, right: 12, top: 12, bottom: 46 };

  const scale = v => (v.log ? Math.log10 : x => x);
  const X = x => margin.left + (scale(view.x)(x) - ends(view.x)[0]) / span(view.x) * inner()[0];
  const Y = y => margin.top + (1 - (scale(view.y)(y) - ends(view.y)[0]) / span(view.y)) * inner()[1];
  const ends = axis => {
    if (!view.equal || axis !== view.x) return axis.range.map(scale(axis));
    const half = span(view.y) / 2 * inner()[0] / inner()[1]; // one unit is as long in both directions
    return [-half, half];
  };
  const span = axis => ends(axis)[1] - ends(axis)[0];
  const inner = () => [width - margin.left - margin.right, height - margin.top - margin.bottom];
  const back = (axis, share) => { const v = ends(axis)[0] + share * span(axis); return axis.log ? 10 ** v : v; };
  const longest = () => Math.max(0, ...(view.lines || []).filter(l => l.replay).map(l => l.x.length - 1));

  /** On a curve the handle has the curve's height. */
  function onCurve(x) {
    const curve = view.lines.find(l => l.curve), xs = curve.x;
    let i = xs.findIndex(v => v >= x);
    if (i <= 0) i = i === 0 ? 1 : xs.length - 1;
    const u = (x - xs[i - 1]) / (xs[i] - xs[i - 1] || 1), log = scale(view.y);
    const v = log(curve.y[i - 1]) * (1 - u) + log(curve.y[i]) * u;
    return view.y.log ? 10 ** v : v;
  }

  function place() {
    const y = view.free === "curve" ? onCurve(point[0]) : point[1];
    handle.style.left = `${X(point[0])}px`;
    handle.style.top = `${Math.min(Math.max(Y(y), margin.top), height - margin.bottom)}px`;
    const words = `${view.handle}: ${view.x.label.split(" ")[0]} ${+point[0].toPrecision(4)}`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${view.y.label} against ${view.x.label}`);
    handle.setAttribute("aria-label", `${view.handle}, move by the arrow keys`);
    handle.setAttribute("aria-valuetext", view.free === "curve" ? words : `${words}, ${+point[1].toPrecision(4)}`);
    handle.setAttribute("aria-valuenow", String(+point[0].toPrecision(6)));
    handle.setAttribute("aria-valuemin", String(view.x.range[0]));
    handle.setAttribute("aria-valuemax", String(view.x.range[1]));
    handle.title = `drag: ${view.handle}`;
  }

  function move(x, y) {
    const clamp = (v, [a, b]) => Math.min(Math.max(v, a), b);
    point = [clamp(x, view.x.log ? view.x.range : ends(view.x)), view.free === "curve" ? point[1] : clamp(y, view.y.range)];
    place();
    // One message each 40 ms, and always the last.
    const tell = () => { waiting = 0; sent = performance.now(); model.set("point", [...point]); model.save_changes(); };
    if (!waiting) waiting = setTimeout(tell, Math.max(0, 40 - (performance.now() - sent)));
  }

  function fromPointer(event) {
    const box = canvas.getBoundingClientRect(), [w, h] = inner();
    move(back(view.x, (event.clientX - box.left - margin.left) / w), back(view.y, 1 - (event.clientY - box.top - margin.top) / h));
  }
  picture.addEventListener("pointerdown", event => {
    if (event.button) return;
    picture.setPointerCapture(event.pointerId);
    handle.focus({ preventScroll: true });
    fromPointer(event);
    event.preventDefault();
  });
  picture.addEventListener("pointermove", event => picture.hasPointerCapture(event.pointerId) && fromPointer(event));
  handle.addEventListener("keydown", event => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    const many = event.shiftKey ? 10 : 1;
    move(point[0] + way[0] * many * view.step[0], point[1] + way[1] * many * view.step[1]);
    event.preventDefault();
    event.stopPropagation();
  });

  button.addEventListener("click", () => {
    cancelAnimationFrame(playing);
    const begun = performance.now(), last = longest(), seconds = 4;
    const tick = now => {
      shown = Math.min(last, Math.floor((now - begun) / 1000 / seconds * last));
      draw();
      playing = shown < last ? requestAnimationFrame(tick) : 0;
    };
    playing = requestAnimationFrame(tick);
  });
  scrub.addEventListener("input", () => { cancelAnimationFrame(playing); shown = Number(scrub.value); draw(); });

  function draw() {
    if (!view.x || !width) return;
    const theme = THEMES[Boolean(view.dark)], ratio = window.devicePixelRatio || 1;
    for (const [name, value] of Object.entries(theme)) root.style.setProperty(`--pad-${name}`, value);
    height = Math.round(Math.min(Math.max(width * (view.aspect || 0.6), 260), 520));
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d"), [w, h] = inner();
    g.scale(ratio, ratio);
    g.fillStyle = theme.card;
    g.fillRect(0, 0, width, height);
    if (view.heat) heat(g, view.heat, w, h);
    axes(g, theme, w, h);
    g.save();
    g.beginPath();
    g.rect(margin.left, margin.top, w, h);
    g.clip();
    for (const line of view.lines || []) stroke(g, line);
    for (const arrow of view.arrows || []) point_at(g, arrow);
    for (const dot of view.dots || []) spot(g, dot, theme);
    g.restore();
    for (const line of (view.lines || []).filter(l => l.replay)) leaves(g, line, theme);
    const last = longest();
    replay.style.display = view.replay ? "flex" : "none";
    scrub.max = String(last);
    scrub.value = String(Math.min(shown, last));
    told.textContent = `${view.replay} ${Math.min(shown, last)} of ${last}`;
    legend(theme);
    place();
  }

  let sheet = null, sheetOf = null;
  function heat(g, map, w, h) {
    if (sheetOf !== map) {
      const rows = map.values.length / map.columns, low = rgb(map.low), high = rgb(map.high);
      sheet = new OffscreenCanvas(map.columns, rows);
      const image = new ImageData(map.columns, rows);
      map.values.forEach((v, i) => {
        for (let c = 0; c < 3; c++) image.data[4 * i + c] = low[c] + (high[c] - low[c]) * v / 255;
        image.data[4 * i + 3] = 255;
      });
      sheet.getContext("2d").putImageData(image, 0, 0);
      sheetOf = map;
    }
    g.drawImage(sheet, margin.left, margin.top, w, h);
  }

  function axes(g, theme, w, h) {
    g.font = FONT;
    g.lineWidth = 1;
    g.fillStyle = theme.soft;
    g.textAlign = "center";
    g.textBaseline = "top";
    for (const [v, text] of ticks(view.x, w / 45)) {
      grid(g, theme, X(v), margin.top, X(v), margin.top + h);
      g.fillText(text, X(v), margin.top + h + 6);
    }
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (const [v, text, power] of ticks(view.y, h / 45)) {
      grid(g, theme, margin.left, Y(v), margin.left + w, Y(v));
      if (power === undefined) g.fillText(text, margin.left - 7, Y(v));
      else raised(g, power, margin.left - 7, Y(v));
    }
    g.strokeStyle = theme.soft;
    g.strokeRect(margin.left, margin.top, w, h);
    g.fillStyle = theme.ink;
    g.textAlign = "center";
    g.textBaseline = "alphabetic";
    g.font = FONT.replace("12px", "13px");
    g.fillText(view.x.label, margin.left + w / 2, height - 8, w);
    g.save();
    g.translate(14, margin.top + h / 2);
    g.rotate(-Math.PI / 2);
    g.fillText(view.y.label, 0, 0, h + margin.bottom);
    g.restore();
  }
  function grid(g, theme, ...ends) {
    if (view.heat) return;
    g.strokeStyle = theme.grid;
    g.beginPath();
    g.moveTo(ends[0], ends[1]);
    g.lineTo(ends[2], ends[3]);
    g.stroke();
  }
  function raised(g, power, x, y) {
    const text = String(power).replace("-", "\u2212");
    g.save();
    g.font = FONT.replace("12px", "9px");
    const wide = g.measureText(text).width;
    g.fillText(text, x, y - 5);
    g.restore();
    g.fillText("10", x - wide - 1, y);
  }

  function ticks(axis, count) {
    const [a, b] = ends(axis);
    if (axis.log) {
      const every = Math.max(1, Math.ceil((b - a) / Math.max(2, count))), out = [];
      for (let p = Math.ceil(a - 1e-9); p <= b + 1e-9; p++) if (p % every === 0) out.push([10 ** p, "", p]);
      return out;
    }
    const rough = (b - a) / Math.max(2, Math.floor(count)), unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(m => m * unit).find(s => s >= rough);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), out = [];
    for (let k = Math.ceil(a / step - 1e-9); k * step <= b + 1e-9 * step; k++)
      out.push([k * step, (k * step).toFixed(digits).replace(/^-0(\.0*)?$/, "0$1").replace("-", "\u2212")]);
    return out;
  }

  function trace(g, line) {
    const last = line.replay ? Math.min(shown, line.x.length - 1) : line.x.length - 1;
    let pen = false;
    g.beginPath();
    for (let i = 0; i <= last; i++) {
      if (line.x[i] === null || line.y[i] === null) { pen = false; continue; }
      g[pen ? "lineTo" : "moveTo"](X(line.x[i]), Y(line.y[i]));
      pen = true;
    }
    return last;
  }
  function stroke(g, line) {
    g.lineJoin = "round";
    const last = trace(g, line);
    if (line.fill) {
      g.save();
      g.globalAlpha = line.fill;
      g.fillStyle = line.color;
      g.fill();
      g.restore();
    }
    g.setLineDash(line.dash || []);
    g.strokeStyle = line.color;
    g.lineWidth = line.width;
    g.stroke();
    g.setLineDash([]);
    if (line.replay) spot(g, { x: line.x[last], y: line.y[last], color: line.color, r: 5 });
  }
  function spot(g, dot, theme) {
    g.fillStyle = dot.color;
    g.beginPath();
    g.arc(X(dot.x), Y(dot.y), dot.r, 0, 2 * Math.PI);
    g.fill();
    if (dot.text) {
      g.font = FONT;
      g.fillStyle = theme.ink;
      g.textAlign = "right";
      g.textBaseline = "middle";
      g.fillText(dot.text, X(dot.x) - dot.r - 5, Y(dot.y));
    }
  }
  function point_at(g, arrow) {
    const [x0, y0, x1, y1] = [X(arrow.from[0]), Y(arrow.from[1]), X(arrow.to[0]), Y(arrow.to[1])];
    const angle = Math.atan2(y1 - y0, x1 - x0), long = Math.hypot(x1 - x0, y1 - y0), head = Math.min(12, long);
    g.strokeStyle = g.fillStyle = arrow.color;
    g.lineWidth = arrow.width;
    g.beginPath();
    g.moveTo(x0, y0);
    g.lineTo(x1 - 0.7 * head * Math.cos(angle), y1 - 0.7 * head * Math.sin(angle));
    g.stroke();
    g.beginPath();
    g.moveTo(x1, y1);
    for (const turn of [2.7, -2.7]) g.lineTo(x1 + head * Math.cos(angle + turn), y1 + head * Math.sin(angle + turn));
    g.fill();
  }
  /** Where a path has left the picture: an arrow on the border and the place it went to. */
  function leaves(g, line, theme) {
    const last = Math.min(shown, line.x.length - 1), [x, y] = [line.x[last], line.y[last]];
    const out = (v, [a, b]) => v < a || v > b;
    if (x === null || y === null || !(out(x, view.x.range) || out(y, view.y.range))) return;
    const [w, h] = inner(), px = Math.min(Math.max(X(x), margin.left + 6), margin.left + w - 6);
    const py = Math.min(Math.max(Y(y), margin.top + 10), margin.top + h - 10);
    const text = `thrown out to (${x.toPrecision(3)}, ${y.toPrecision(3)})`.replaceAll("-", "\u2212");
    g.font = FONT;
    g.textBaseline = "middle";
    const right = px > margin.left + w / 2;
    g.textAlign = right ? "right" : "left";
    g.lineWidth = 4;
    g.strokeStyle = theme.card;
    g.strokeText(text, px + (right ? -10 : 10), py);
    g.fillStyle = line.color;
    g.fillText(text, px + (right ? -10 : 10), py);
    g.beginPath();
    g.arc(px, py, 5, 0, 2 * Math.PI);
    g.fill();
  }

  let legendOf = "";
  function legend(theme) {
    const rows = [...(view.lines || []), ...(view.arrows || [])].filter(l => l.name).map(l => [l.name, l.color, l.dash || [], l.width]);
    const heat = view.heat ? `<li><svg><rect width="28" height="10" fill="url(#pad-heat)"/><defs><linearGradient id="pad-heat">
      <stop stop-color="${view.heat.low}"/><stop offset="1" stop-color="${view.heat.high}"/></linearGradient></defs></svg>${view.heat.name}</li>` : "";
    const ring = `<li><svg><circle cx="14" cy="5" r="4" fill="none" stroke="${theme.ink}" stroke-width="2"/></svg>${view.handle}: drag, click or arrow keys</li>`;
    const html = rows.map(([name, color, dash, wide]) => `<li><svg><line x1="0" x2="28" y1="5" y2="5" stroke="${color}"
      stroke-width="${wide}" stroke-dasharray="${dash.join(" ")}"/></svg>${name}</li>`).join("") + heat + ring;
    if (html !== legendOf) { key.innerHTML = html; legendOf = html; }
  }

  const renew = () => { view = model.get("view"); if (view.x) draw(); };
  const elsewhere = () => { const p = model.get("point"); if (!waiting && (p[0] !== point[0] || p[1] !== point[1])) { point = [...p]; if (view.x) place(); } };
  model.on("change:view", renew);
  model.on("change:point", elsewhere);
  const observer = new ResizeObserver(() => {
    const wide = root.clientWidth - 12;
    if (wide > 0 && wide !== width) { width = wide; cancelAnimationFrame(frame); frame = requestAnimationFrame(draw); }
  });
  observer.observe(root);
  return () => { observer.disconnect(); model.off("change:view", renew); model.off("change:point", elsewhere); };
}

function make(tag, attributes, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}
const rgb = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));

export default { render };
