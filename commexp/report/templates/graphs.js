"use strict";
// The page's graphs: see graph.py. ``scale``: pixels of the screen that a drawing's pixel takes.

const LARGEST = 1.2; // scale of a drawing that has room
const NARROWEST = 160; // of a drawing's pixels: a smaller one is enlarged
const HIGHEST = 384; // pixels of the screen
const PRINTED = 208; // pixels of a graph's width on paper

const middle = (link) => ({ x: (link.x[0] + link.x[1]) / 2, y: (link.y[0] + link.y[1]) / 2 });
const coordinates = (points) => ({ x: points.map((p) => p.x), y: points.map((p) => p.y) });

// Links that look the same, together.
function byLook(links) {
  const looks = new Map();
  for (const link of links) {
    const look = `${link.width} ${link.dashed}`;
    if (!looks.has(look)) looks.set(look, []);
    looks.get(look).push(link);
  }
  return [...looks.values()];
}

function line({ width, dashed }, scale, name) {
  return { color: color(name), width: width * scale, dash: dashed ? `${4 * scale}px,${3 * scale}px` : "solid" };
}

function linkTraces(links, scale) {
  return byLook(links).map((same) => {
    const [x, y] = ["x", "y"].map((axis) => same.flatMap((link) => [...link[axis], null]));
    return { x, y, mode: "lines", line: line(same[0], scale, "--soft"), opacity: 0.75, hoverinfo: "skip" };
  });
}

// The links that stand out: shapes are drawn anew without the rest.
function nearShapes(links, scale) {
  const stroke = ({ x, y }, i) => `M${x[i]} ${y[i]}L${x[i + 1]} ${y[i + 1]}`;
  const path = (link) => stroke(link, 0) + (link.x.length > 2 ? stroke(link, 3) : "");
  return byLook(links).map((same) => ({ type: "path", path: same.map(path).join(""), line: line(same[0], scale, "--accent") }));
}

function arrowTrace(links, scale) {
  const angle = links.map(({ x, y }) => (Math.atan2(x[1] - x[0], y[1] - y[0]) * 180) / Math.PI);
  const marker = { symbol: "arrow", size: 9 * scale, angle, color: color("--soft"), opacity: 0.75 };
  return { ...coordinates(links.map(({ x, y }) => ({ x: x[1], y: y[1] }))), mode: "markers", marker, hoverinfo: "skip" };
}

// Nothing to see: where the pointer is told a link's weight.
function weightTrace(links) {
  const text = links.map((link) => link.text);
  return { ...coordinates(links.map(middle)), text, hoverinfo: "text", mode: "none", customdata: links.map((l) => [l]) };
}

function workerTrace({ workers, links, dot }, scale) {
  const own = workers.map((_, n) => links.filter((link) => link.ends.includes(n)));
  const size = Math.min(11, 0.5 * dot);
  return {
    ...coordinates(workers), hovertext: workers.map((worker) => worker.text), hoverinfo: "text", customdata: own,
    mode: size > 6 ? "markers+text" : "markers", text: workers.map((_, n) => `${n}`),
    textfont: { size: size * scale, color: color("--paper") },
    marker: { size: dot * scale, color: color("--node"), opacity: 1, line: { color: color("--paper"), width: 1 } },
  };
}

function weightLabels(graph, scale) {
  const font = { size: 8 * scale, color: color("--ink") };
  const look = { showarrow: false, font, bgcolor: color("--paper"), borderpad: 0 };
  return graph.links.filter((l) => l.x.length === 2).map((link) => ({ ...middle(link), text: link.weight, ...look }));
}

function drawGraph(element, graph, room) {
  const [width, height] = graph.size;
  const shown = Math.min(room, LARGEST * Math.max(width, NARROWEST));
  const scale = Math.min(shown / width, HIGHEST / height);
  const axis = (length) => ({ range: [-graph.pad, length - graph.pad], visible: false, fixedrange: true });
  const traces = [
    ...linkTraces(graph.links, scale),
    ...(graph.directed ? [arrowTrace(graph.links, scale)] : []),
    weightTrace(graph.links),
    workerTrace(graph, scale),
  ];
  const layout = {
    width: width * scale, height: height * scale, margin: { l: 0, r: 0, t: 0, b: 0 }, xaxis: axis(width),
    yaxis: axis(height), paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    hovermode: "closest", dragmode: false, hoverlabel: hoverLabel(), font: { family: getComputedStyle(document.body).fontFamily },
    annotations: graph.labelled ? weightLabels(graph, scale) : [], meta: { scale },
  };
  Plotly.react(element, traces, layout, { displayModeBar: false });
}

function drawGraphs(room) {
  document.querySelectorAll(".drawing").forEach((element, k) => {
    drawGraph(element, data.graphs[k], room ?? element.clientWidth);
  });
}

function makeNear(element) {
  const show = (links) => Plotly.relayout(element, { shapes: nearShapes(links, element.layout.meta.scale) });
  element.on("plotly_hover", (event) => show(event.points[0].customdata));
  element.on("plotly_unhover", () => show([]));
}

drawGraphs();
document.querySelectorAll(".drawing").forEach(makeNear);
addEventListener("resize", () => drawGraphs());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawGraphs());
addEventListener("beforeprint", () => drawGraphs(PRINTED)); // page.js has made the colours light
addEventListener("afterprint", () => drawGraphs());
