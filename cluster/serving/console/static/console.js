"use strict";
// Pages work without this file. It adds what HTML alone cannot do.

// A form is sent once: a second click while the first answer is on its way would send it again.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.target) return; // what opens elsewhere leaves this page as it is
  for (const button of event.target.querySelectorAll("button:not([type=button])")) {
    setTimeout(() => { button.disabled = true; });
  }
});

// A page that the browser shows again from memory shows forms that can be sent, and nothing of somebody who signed out.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

// htmx notes the page's path for a history that these pages do not use.
addEventListener("load", () => sessionStorage.clear());

// Buttons that print the page, such as a letter's.
for (const button of document.querySelectorAll("[data-print]")) {
  button.hidden = false;
  button.addEventListener("click", () => print());
}

// A live page says whether it is live.
const live = document.querySelector("[data-live]");
if (live) {
  const say = (text) => { if (live.textContent !== text) live.textContent = text; };
  document.body.addEventListener("htmx:sseOpen", (event) => {
    for (const name of ["trouble", "over"]) {
      event.detail.source.addEventListener(name, (message) => say(message.data));
    }
  });
  document.body.addEventListener("htmx:sseError", () => say("Not live: the connection is gone. Reload the page to see what is new."));
}

// Charts are drawn from the table below them.
for (const place of document.querySelectorAll("[data-chart]")) {
  const { names, rows } = JSON.parse(place.dataset.chart);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const strokes = ["--accent", "--busy", "--good", "--bad", "--soft"].map(colour);
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line") }, ticks: { stroke: colour("--line") } };
  const width = () => Math.max(260, place.clientWidth - 32);
  const chart = new uPlot({
    width: width(), height: 220, scales: { x: { time: false } }, cursor: { drag: { x: false, y: false } },
    axes: [{ ...axis, label: "generation", incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }, axis],
    series: [{ label: "generation" }, ...names.map((name, index) => ({
      label: name, stroke: strokes[index % strokes.length], width: 2, points: { show: true }, dash: index ? [6, 3 * index] : [],
    }))],
  }, [rows.map((row) => row.generation), ...names.map((name) => rows.map((row) => row.metrics[name] ?? null))], place);
  addEventListener("resize", () => chart.setSize({ width: width(), height: 220 }));
}
