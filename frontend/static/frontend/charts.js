// Charts by round: each is drawn from the table that is its alternative, so that the two cannot tell different things.
// The table comes with the page and with every fragment; the canvas stays and gets the new points.
import { say } from "live";

const charts = new Map(); // canvas element -> { plot, points, at }

function read(table) {
  const rows = [...table.querySelectorAll("tr[data-x]")];
  return [rows.map((row) => Number(row.dataset.x)), rows.map((row) => Number(row.dataset.y))];
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Without a pointer over the chart its legend tells the newest value.
function tellNewest(plot) {
  if (plot.cursor.idx == null) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function build(canvas, table, points) {
  const axis = () => ({ stroke: colour("--lw-text-quiet"), grid: { stroke: colour("--lw-line"), width: 1 }, ticks: { show: false } });
  return new uPlot(
    {
      width: canvas.clientWidth,
      height: 240,
      hooks: { ready: [tellNewest], setLegend: [tellNewest] },
      cursor: { drag: { x: false, y: false } },
      legend: { show: true, live: true },
      scales: {
        x: { time: false, range: (_, low, high) => [Math.min(low, 0), Math.max(high, 1)] },
        y: { range: (_, low, high) => (low === null ? [0, 1] : [Math.max(0, Math.floor(low * 20 - 0.4) / 20), Math.min(1, Math.ceil(high * 20 + 0.4) / 20)]) },
      },
      axes: [
        { ...axis(), size: 28, label: table.dataset.xName, labelSize: 20, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] },
        { ...axis(), size: 52, values: (_, ticks) => ticks.map((tick) => tick.toFixed(2)) },
      ],
      series: [
        { label: table.dataset.xName },
        {
          label: table.dataset.yName,
          stroke: colour("--lw-active"),
          width: 2,
          points: { show: true, size: 7, fill: colour("--lw-surface") },
          value: (_, value) => (value === null ? "–" : value.toFixed(3)),
        },
      ],
    },
    points,
    canvas,
  );
}

function draw(canvas, anew = false) {
  const table = document.getElementById(canvas.dataset.chartOf);
  if (!table) return;
  const points = read(table);
  canvas.hidden = points[0].length === 0;
  if (canvas.hidden) return;
  let chart = charts.get(canvas);
  if (chart && anew) {
    chart.plot.destroy();
    chart = undefined;
  }
  if (chart) {
    chart.plot.setData(points);
    chart.points = points;
  } else {
    chart = { plot: build(canvas, table, points), points, at: points[0].length };
    charts.set(canvas, chart);
  }
  tellNewest(chart.plot);
}

function drawAll(anew = false) {
  for (const canvas of charts.keys()) if (!canvas.isConnected) charts.delete(canvas);
  for (const canvas of document.querySelectorAll("[data-chart-of]")) draw(canvas, anew);
}

document.addEventListener("keydown", (event) => {
  const chart = charts.get(event.target);
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!chart || !step) return;
  event.preventDefault();
  const [xs, ys] = chart.points;
  chart.at = Math.min(xs.length - 1, Math.max(0, chart.at + step));
  const { at, plot } = chart;
  plot.setCursor({ left: plot.valToPos(xs[at], "x"), top: plot.valToPos(ys[at], "y") });
  say(`${plot.series[0].label} ${xs[at]}: ${plot.series[1].label} ${ys[at].toFixed(3)}`, 0);
});
document.body.addEventListener("htmx:afterSettle", () => drawAll());
addEventListener("themechange", () => drawAll(true));
addEventListener("resize", () => {
  for (const [canvas, { plot }] of charts) plot.setSize({ width: canvas.clientWidth, height: 240 });
});
drawAll();
