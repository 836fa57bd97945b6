"use strict";
// The page's data: see embed.py. Everything that comes from a run is set as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const DASHES = ["solid", "dash", "dashdot", "dot"];
const FIRST = 12; // methods that are switched on at the beginning
const FAR = 5; // times as far as the shortest line goes the longest: where that is more, both are seen on a log scale
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

// How an axis and its values are written, by the kind of its column.
function scale(key) {
  const [kind, unit] = [data.scales[key], data.units[key]];
  if (kind === "bytes") return { tickformat: "~s", ticksuffix: "B", hoverformat: ".3~s" };
  if (kind === "bits") return { tickformat: "~s", ticksuffix: "bit", hoverformat: ".3~s" };
  if (kind === "percent") return { tickformat: ".4~%", hoverformat: ".2%" };
  if (unit) return { tickformat: "~g", ticksuffix: text(` ${unit}`), hoverformat: ".4~g" };
  return { tickformat: "~g", hoverformat: ".5~g", ...(data.x.some(([x]) => x === key) && { tickformat: "~s" }) };
}

// [runs, x, y] of a method: its mean with the least and the greatest, or its runs.
function lines(method, x, y, each) {
  const found = method.runs.filter((run) => column(run, x) && column(run, y));
  if (each) return found.map((run) => ({ x: column(run, x), y: column(run, y), seed: run.seed }));
  const runs = found.filter((run) => run.mean);
  if (!runs.length) return [];
  const xs = runs.map((run) => column(run, x));
  const ys = runs.map((run) => column(run, y));
  const rows = Array.from({ length: Math.min(...ys.map((v) => v.length)) }, (_, i) => i);
  const over = (columns, take) => rows.map((i) => take(columns.map((v) => v[i])));
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const line = { x: over(xs, mean), y: over(ys, mean), seed: runs.map((run) => run.seed).join(", ") };
  const range = { low: over(ys, (v) => Math.min(...v)), high: over(ys, (v) => Math.max(...v)) };
  if (runs.length > 1) Object.assign(line, range);
  return [line];
}

function style(k) {
  return { color: color(`--c${k % 7}`), dash: DASHES[Math.floor(k / 7) % DASHES.length], width: 1.8 };
}

function traces(x, y, each) {
  const made = [];
  const fits = (v, id) => Number.isFinite(v) && (v > 0 || !byId(`log${id}`).checked);
  data.methods.forEach((method, k) => {
    if (!on.has(k)) return;
    for (const line of lines(method, x, y, each)) {
      const shown = line.y.map((v, i) => fits(v, "y") && fits(line.x[i], "x"));
      const look = style(k);
      if (line.low) {
        const kept = line.x.map((_, i) => i).filter((i) => shown[i] && fits(line.low[i], "y"));
        const back = [...kept].reverse();
        made.push({
          x: [...kept.map((i) => line.x[i]), ...back.map((i) => line.x[i])],
          y: [...kept.map((i) => line.high[i]), ...back.map((i) => line.low[i])],
          fill: "toself", fillcolor: look.color, opacity: 0.15, line: { width: 0 }, mode: "lines", hoverinfo: "skip",
        });
      }
      const seeds = line.low ? "seeds" : "seed";
      made.push({
        x: line.x, y: line.y.map((v, i) => (shown[i] ? v : null)), line: look, name: text(method.name), meta: k,
        mode: shown.filter(Boolean).length === 1 ? "markers" : "lines",
        hovertemplate: `<b>${text(method.name)}</b><br>${seeds} ${text(line.seed)}<br>%{x}, %{y}<extra></extra>`,
      });
    }
  });
  return made;
}

// Least and greatest of the positive values.
function extent(columns) {
  let [low, high] = [Infinity, 0];
  for (const values of columns)
    for (const v of values) if (v > 0 && v < Infinity) [low, high] = [Math.min(low, v), Math.max(high, v)];
  return [low, high];
}

function axis(id, made) {
  const key = byId(id).value;
  const log = byId(`log${id}`).checked;
  const [low, high] = extent(log ? made.map((trace) => trace[id]) : []);
  const decades = high > 0 ? Math.log10(high / low) : 1;
  const narrow = byId("plot").clientWidth < 500;
  const powers = decades < (narrow ? 1.3 : 2.5) ? "D2" : Math.ceil(decades / (narrow ? 4 : 7));
  const ticks = log ? { dtick: powers } : { nticks: narrow ? 5 : 8 };
  return {
    ...scale(key), ...ticks, type: log ? "log" : "linear", title: { text: text(label(id, key)), standoff: 8 },
    automargin: true, gridcolor: color("--line"), linecolor: color("--line"), zeroline: false,
  };
}

function draw(width) {
  if (!data.first) return;
  const [x, y] = [byId("x").value, byId("y").value];
  const made = traces(x, y, byId("lines").value === "each");
  const touch = matchMedia("(pointer: coarse)").matches; // where dragging is to scroll the page
  const layout = {
    xaxis: axis("x", made), yaxis: axis("y", made),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: color("--soft") },
    hoverlabel: hoverLabel(),
    margin: { l: 56, r: 12, t: 12, b: 46 }, dragmode: touch ? false : "zoom", width,
  };
  const image = { format: "svg", filename: `${y}-${x}` };
  const bar = touch ? { displayModeBar: false } : { modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  Plotly.react("plot", made, layout, { responsive: true, displaylogo: false, toImageButtonOptions: image, ...bar });
}

// Log scales to begin with: of x where one line ends much further on than another, of y where it spans as much.
function suggestLog(changed) {
  const [x, y] = [byId("x").value, byId("y").value];
  const shown = data.methods.filter((_, k) => on.has(k)).flatMap((method) => method.runs);
  const runs = shown.filter((run) => column(run, x) && column(run, y));
  if (changed !== "y") {
    const ends = runs.map((run) => column(run, x).at(-1));
    byId("logx").checked = Math.min(...ends) > 0 && Math.max(...ends) > FAR * Math.min(...ends);
  }
  if (changed !== "x") {
    const columns = runs.map((run) => column(run, y));
    const [low, high] = extent(columns);
    const positive = columns.every((values) => values.every((v) => !(v <= 0)));
    byId("logy").checked = data.scales[y] !== "percent" && positive && high > FAR * low;
  }
}

function swatch(k) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", "M0 4H22");
  line.style.cssText = `stroke: var(--c${k % 7}); stroke-width: 2.4; fill: none`;
  line.setAttribute("stroke-dasharray", ["none", "6 3", "6 2 2 2", "2 2"][Math.floor(k / 7) % 4]);
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
  draw(720);
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("printing");
  draw();
});
