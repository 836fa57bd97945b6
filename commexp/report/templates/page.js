"use strict";
// The page's data: see embed.py. Everything that comes from a run is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const FIRST = 12; // methods that are switched on at the beginning
const FAR = 5; // times as far as the shortest line goes the longest: where that is more, both are seen on a log scale
const FARTHER = 1000; // the same of values, where others are zero and have no place on it
const TIMES = [["ms", 1e-3, 1], ["s", 1, 100], ["min", 60, 6e3], ["h", 3600, 3.6e5], ["d", 86400, Infinity]];
const on = new Set(data.methods.map((_, k) => k).filter((k) => k < FIRST));
const decoded = new Map();

function column(run, name) {
  if (!Object.hasOwn(run.columns, name)) return null;
  const number = run.columns[name];
  if (!decoded.has(number)) {
    const bytes = Uint8Array.from(atob(data.pool[number]), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    decoded.set(number, Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true)));
  }
  return decoded.get(number);
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const text = (s) => s.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // Plotly reads markup
const hoverLabel = () => ({ bgcolor: color("--paper"), bordercolor: color("--line"), font: { color: color("--ink") } });
const label = (axis, key) => data[axis].find(([name]) => name === key)[1];

const dark = () => matchMedia("(prefers-color-scheme: dark)").matches && !document.documentElement.className;

// The unit of a column's axis, and what its values are divided by: seconds are in minutes or hours where they are many.
function unitOf(key, values) {
  const unit = data.units[key] ?? "";
  if (unit !== "s") return [unit, 1];
  const [, most] = extent(values);
  return TIMES.find(([, , below]) => most < below);
}

// 500 kB for 500kB, and for 500k, which plotly writes between powers of ten.
function spaced(unit) {
  const counts = [1, 10, 100].flatMap((n) => [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 7.5, 8, 9].map((digit) => n * digit));
  const texts = ["", "k", "M", "G", "T"].flatMap((prefix) => counts.map((n) => [`${n}${prefix}`, `${n} ${prefix}${unit}`]));
  return Object.fromEntries(texts.flatMap(([short, long]) => [[short, long], [`${short}${unit}`, long]]));
}

// How an axis and its values are written, by the kind of its column.
function scale(key, unit) {
  const kind = data.scales[key];
  if (kind === "bytes") return { tickformat: "~s", ticksuffix: "B", hoverformat: ".3~s", labelalias: spaced("B") };
  if (kind === "bits") return { tickformat: "~s", ticksuffix: "bit", hoverformat: ".3~s", labelalias: spaced("bit") };
  if (kind === "percent") return { tickformat: ".4~%", hoverformat: ".2%" };
  if (unit) return { tickformat: "~g", ticksuffix: text(` ${unit}`), hoverformat: ".4~g" };
  return { tickformat: "~g", hoverformat: ".5~g", ...(data.x.some(([x]) => x === key) && { tickformat: "~s" }) };
}

// Lines of a method: its mean with a band, see bands.py, or its runs.
function lines(method, x, y, kind) {
  const found = method.runs.filter((run) => column(run, x) && column(run, y));
  if (kind === "each") return found.map((run) => ({ x: column(run, x), y: column(run, y), seed: run.seed }));
  const runs = found.filter((run) => run.mean);
  if (!runs.length) return [];
  const xs = runs.map((run) => column(run, x));
  const ys = runs.map((run) => column(run, y));
  const rows = Array.from({ length: Math.min(...ys.map((v) => v.length)) }, (_, i) => i);
  const over = (columns, take) => rows.map((i) => take(columns.map((v) => v[i])));
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const line = { x: over(xs, mean), y: over(ys, mean), seed: runs.map((run) => run.seed).join(", ") };
  if (runs.length < 2) return [line];
  const half = (v) => {
    const middle = mean(v);
    const square = v.reduce((sum, one) => sum + (one - middle) ** 2, 0);
    return data.factors[kind][v.length] * Math.sqrt(square / (v.length - 1));
  };
  const low = kind === "range" ? (v) => Math.min(...v) : (v) => mean(v) - half(v);
  const high = kind === "range" ? (v) => Math.max(...v) : (v) => mean(v) + half(v);
  return [{ ...line, low: over(ys, low), high: over(ys, high), least: over(ys, (v) => Math.min(...v)), runs: runs.length }];
}

function style(k) {
  const look = data.methods[k].look;
  return { color: dark() ? look.dark : look.light, dash: look.dash, width: 1.8 };
}

// What is drawn: [number of the method, line] of each.
function chosen() {
  const [x, y, kind] = ["x", "y", "lines"].map((id) => byId(id).value);
  return [...on].sort((a, b) => a - b).flatMap((k) => lines(data.methods[k], x, y, kind).map((line) => [k, line]));
}

// ``sizes``: what the values of each axis are divided by.
function traces(drawn, sizes) {
  const made = [];
  const logs = { x: byId("logx").checked, y: byId("logy").checked };
  const fits = (v, id) => Number.isFinite(v) && (v > 0 || !logs[id]);
  const scaled = (values, id) => values.map((v) => v / sizes[id]);
  for (const [k, line] of drawn) {
    const [x, y, look, name] = [scaled(line.x, "x"), scaled(line.y, "y"), style(k), text(data.methods[k].name)];
    const shown = y.map((v, i) => fits(v, "y") && fits(x[i], "x"));
    if (line.low) {
      // on a log scale a band that reaches down to zero is cut off, so that it does not decide how far down one sees
      const cut = scaled(line.least, "y").map((v) => (logs.y ? 0.1 * v : -Infinity));
      const low = scaled(line.low, "y").map((v, i) => Math.max(v, cut[i]));
      const kept = x.map((_, i) => i).filter((i) => shown[i] && fits(low[i], "y"));
      const back = [...kept].reverse();
      made.push({
        x: [...kept, ...back].map((i) => x[i]), y: [...kept.map((i) => line.high[i] / sizes.y), ...back.map((i) => low[i])],
        fill: "toself", fillcolor: look.color, opacity: 0.15, line: { width: 0 }, mode: "lines", hoverinfo: "skip",
      });
    }
    const seeds = line.low ? "seeds" : "seed";
    made.push({
      x, y: y.map((v, i) => (shown[i] ? v : null)), line: look, name, meta: k,
      mode: shown.filter(Boolean).length === 1 ? "markers" : "lines",
      hovertemplate: `<b>${name}</b><br>${seeds} ${text(line.seed)}<br>%{x}, %{y}<extra></extra>`,
    });
  }
  return made;
}

// Least and greatest of the positive values.
function extent(columns) {
  let [low, high] = [Infinity, 0];
  for (const values of columns)
    for (const v of values) if (v > 0 && v < Infinity) [low, high] = [Math.min(low, v), Math.max(high, v)];
  return [low, high];
}

function axis(id, made, unit) {
  const key = byId(id).value;
  const log = byId(`log${id}`).checked;
  const [low, high] = extent(log ? made.map((trace) => trace[id]) : []);
  const decades = high > 0 ? Math.log10(high / low) : 1;
  const narrow = byId("plot").clientWidth < 500;
  const powers = decades < (narrow ? 1.3 : 2.5) ? "D2" : Math.ceil(decades / (narrow ? 4 : 7));
  const ticks = log ? { dtick: powers } : { nticks: narrow ? 5 : 8 };
  return {
    ...scale(key, unit), ...ticks, type: log ? "log" : "linear", title: { text: text(label(id, key)), standoff: 8 },
    automargin: true, gridcolor: color("--line"), linecolor: color("--line"), zeroline: false,
  };
}

function draw(width, height) {
  if (!data.first) return;
  const [x, y, kind] = ["x", "y", "lines"].map((id) => byId(id).value);
  const drawn = chosen();
  const units = { x: unitOf(x, drawn.map(([, line]) => line.x)), y: unitOf(y, drawn.map(([, line]) => line.y)) };
  const made = traces(drawn, { x: units.x[1], y: units.y[1] });
  const touch = matchMedia("(pointer: coarse)").matches; // where dragging is to scroll the page
  const layout = {
    xaxis: axis("x", made, units.x[0]), yaxis: axis("y", made, units.y[0]),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: color("--soft") },
    hoverlabel: hoverLabel(),
    margin: { l: 56, r: 12, t: touch ? 12 : 34, b: 46 }, dragmode: touch ? false : "zoom", width, height,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--accent") },
  };
  const image = { format: "svg", filename: `${y}-${x}` };
  // these buttons alone: the library has one that sends the data away
  const bar = { displayModeBar: !touch, modeBarButtons: [["toImage"], ["zoom2d", "pan2d"], ["resetScale2d"]] };
  Plotly.react("plot", made, layout, { responsive: true, displaylogo: false, toImageButtonOptions: image, ...bar });
  const counts = [...new Set(drawn.map(([, line]) => line.runs).filter(Boolean))].sort((a, b) => a - b);
  const seeds = counts.length > 1 ? `${counts[0]} to ${counts.at(-1)}` : `${counts[0]}`;
  byId("bands").textContent = counts.length ? `bands: ${new Map(data.bands).get(kind)} over ${seeds} seeds` : "";
}

// What is drawn, in the units of metrics.csv.
function curvesAsRows() {
  const [x, y] = [byId("x").value, byId("y").value];
  const rows = chosen().flatMap(([k, line]) => line.x.map((v, i) => [
    data.methods[k].name, line.seed, v, line.y[i], line.low?.[i], line.high?.[i],
  ]));
  return [["method", "seeds", x, y, `${y}_low`, `${y}_high`], ...rows];
}

// Log scales to begin with, as in figures, see curves.py: of x where one line ends much further on than another, or
// bytes go much further than to the first evaluation; of y where values that are no shares span a factor.
function suggestLog(changed) {
  const [x, y] = [byId("x").value, byId("y").value];
  const shown = data.methods.filter((_, k) => on.has(k)).flatMap((method) => method.runs);
  const runs = shown.filter((run) => column(run, x) && column(run, y));
  if (changed !== "y") {
    const ends = runs.map((run) => column(run, x).at(-1));
    const starts = data.scales[x] === "bytes" ? runs.map((run) => extent([column(run, x)])[0]) : [];
    const least = Math.min(...ends, ...starts);
    byId("logx").checked = least > 0 && Math.max(...ends) > FAR * least;
  }
  if (changed !== "x") {
    const columns = runs.map((run) => column(run, y));
    const [low, high] = extent(columns);
    const some = (test) => columns.some((values) => values.some(test));
    const far = high > (some((v) => v === 0) ? FARTHER : FAR) * low;
    byId("logy").checked = data.scales[y] !== "percent" && far && !some((v) => v < 0);
  }
}

function swatch(k) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", "M0 4H22");
  const { look } = data.methods[k];
  line.setAttribute("class", "swatch");
  line.style.cssText = `--light: ${look.light}; --dark: ${look.dark}; stroke-width: 2.4; fill: none`;
  line.setAttribute("stroke-dasharray", { solid: "none", dash: "6 3", dashdot: "6 2 2 2", dot: "2 2" }[look.dash]);
  svg.append(line);
  return svg;
}

function show() {
  byId("count").textContent = `${on.size} of ${data.methods.length} methods`;
  document.querySelectorAll("#list input").forEach((box, k) => { box.checked = on.has(k); });
  const names = new Set([...on].map((k) => data.methods[k].name));
  const bars = [...document.querySelectorAll(".bar")];
  bars.forEach((bar) => { bar.hidden = !names.has(bar.dataset.method); });
  const longest = Math.max(...bars.filter((bar) => !bar.hidden).map((bar) => Number(bar.dataset.ms)), 1e-9);
  if (bars.length) bars[0].parentElement.style.setProperty("--longest", longest);
  draw();
}

function makeSwitches() {
  data.methods.forEach((method, k) => {
    const row = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox" });
    const name = Object.assign(document.createElement("span"), { textContent: method.name });
    box.addEventListener("change", () => { on[box.checked ? "add" : "delete"](k); show(); });
    row.append(box, swatch(k), name);
    byId("list").append(row);
  });
  const rows = [...byId("list").children];
  const shown = () => rows.map((_, k) => k).filter((k) => !rows[k].hidden);
  byId("all").addEventListener("click", () => { shown().forEach((k) => on.add(k)); show(); });
  byId("none").addEventListener("click", () => { shown().forEach((k) => on.delete(k)); show(); });
  byId("filter").hidden = rows.length <= FIRST;
  byId("filter").addEventListener("input", () => {
    const words = byId("filter").value.toLowerCase().split(/\s+/);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
  });
}

function makeAxes() {
  for (const id of ["x", "y"]) {
    for (const [key, title] of data[id]) byId(id).append(new Option(title, key));
    byId(id).addEventListener("change", () => { suggestLog(id); draw(); });
    byId(`log${id}`).addEventListener("change", () => draw());
  }
  byId("x").value = data.x.some(([key]) => key === "bytes_sent") ? "bytes_sent" : "round";
  byId("y").value = data.first;
  byId("lines").addEventListener("change", () => draw());
  byId("csv").addEventListener("click", () => download("curves.csv", csvOf(curvesAsRows())));
}

byId("nothing").hidden = Boolean(data.first);
document.querySelector(".panel").hidden = byId("axes").hidden = !data.first;
if (data.first) {
  makeAxes();
  makeSwitches();
  suggestLog();
  show();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
}
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  document.documentElement.classList.add("printing"); // the light colours
  draw(720, 368);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printing");
  draw();
});
