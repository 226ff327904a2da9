"use strict";
// Draws the lanes of one estimate on a canvas. All text that it shows goes through textContent or fillText.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const box = document.getElementById("lanes");
  const canvas = box.appendChild(document.createElement("canvas"));
  const tip = box.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;
  const context = canvas.getContext("2d");
  const PITCH = 44, BAR = 26, LEFT = 112, TOP = 34, AXIS = 26, OVERVIEW = 16;
  const height = TOP + data.lanes.length * PITCH + AXIS;
  const rows = data.lanes.map(() => []);
  data.work.forEach((work, number) => rows[data.kinds[work].lane].push(number));
  let low = 0, high = data.ns, line = -1, over = -1, wide = 0, colours = {};

  const px = (ns) => LEFT + ((ns - low) / (high - low)) * (wide - LEFT);
  const ns = (x) => low + ((x - LEFT) / (wide - LEFT)) * (high - low);
  const read = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ink", "muted", "grid", "card", "best", "spread", "reference", "trial"])
      colours[name] = style.getPropertyValue("--" + name).trim();
  };
  const time = (value, step = 1) => {
    const us = value / 1e3;
    const digits = step >= 1e3 ? 0 : step >= 100 ? 1 : step >= 10 ? 2 : 3;
    return us.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + " us";
  };
  const first = (row, from) => { // the first bar of a lane that ends behind a time
    let a = 0, b = row.length;
    while (a < b) { const mid = (a + b) >> 1; if (data.end[row[mid]] < from) a = mid + 1; else b = mid; }
    return a;
  };
  const role = (number) => data.line[number] === line ? "reference" : data.critical[number] ? "best" : "spread";

  function drawLane(row, top) {
    const tails = data.kinds.some((kind) => kind.lane === rows.indexOf(row) && kind.tail);
    const fine = { spread: new Float32Array(wide + 2), best: new Float32Array(wide + 2), reference: new Float32Array(wide + 2) };
    for (let place = Math.max(0, first(row, low) - 1); place < row.length; place++) {
      const number = row[place], from = data.start[number], to = data.end[number];
      if (from > high) break;
      const a = Math.max(LEFT, px(from)), b = Math.min(wide, px(to));
      if (tails) tail(number, top, to, place + 1 < row.length ? data.start[row[place + 1]] : data.ns);
      if (b < LEFT) continue;
      if (b - a < 1.5) {
        for (let x = Math.floor(a); x <= Math.min(wide, Math.floor(b)); x++)
          fine[role(number)][x] += Math.max(0.12, Math.min(b, x + 1) - Math.max(a, x));
      } else bar(number, top, a, b);
    }
    for (const name of ["spread", "best", "reference"]) {
      context.fillStyle = colours[name];
      for (let x = LEFT; x <= wide; x++) if (fine[name][x]) {
        context.globalAlpha = Math.min(1, 0.15 + fine[name][x]);
        context.fillRect(x, top, 1, BAR);
      }
    }
    context.globalAlpha = 1;
  }
  function tail(number, top, from, next) { // latency, as far as nothing else is drawn there
    const a = Math.max(LEFT, px(from));
    const b = Math.min(wide, px(Math.min(next, from + data.kinds[data.work[number]].tail)));
    if (b - a < 2) return;
    context.fillStyle = colours.trial;
    context.fillRect(a, top + BAR / 2 - 1, b - a, 2);
  }
  function bar(number, top, a, b) {
    const name = role(number);
    const gap = b - a > 4 ? 0.8 : b - a > 2.5 ? 0.4 : 0;
    context.fillStyle = colours[name];
    context.beginPath();
    context.roundRect(a, top, b - a - gap, BAR, Math.min(3, (b - a) / 4));
    context.fill();
    const text = data.kinds[data.work[number]].name + "  " + data.lines[data.line[number]][0];
    if (b - a > 56) {
      context.save();
      context.beginPath(); context.rect(a + 4, top, b - a - 9, BAR); context.clip();
      context.fillStyle = name === "spread" ? colours.ink : colours.card;
      context.font = "11px system-ui, sans-serif";
      context.textAlign = "left";
      context.fillText(text, a + 6, top + BAR / 2 + 4);
      context.restore();
    }
  }
  function axis() {
    const step = [1, 2, 5].flatMap((digit) => [...Array(9).keys()].map((power) => digit * 10 ** power))
      .sort((a, b) => a - b).find((each) => (high - low) / each <= Math.max(2, (wide - LEFT) / 110)) || 1e9;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) {
      const x = px(at);
      context.fillStyle = colours.grid;
      context.fillRect(Math.round(x), TOP - 6, 1, height - TOP - AXIS + 8);
      context.fillStyle = colours.muted;
      if (x > LEFT + 18 && x < wide - 24) context.fillText(time(at, step), x, height - 8);
    }
  }
  function overview() { // the whole kernel, and the part that is shown
    const scale = (wide - LEFT) / data.ns;
    context.fillStyle = colours.grid;
    context.fillRect(LEFT, 4, wide - LEFT, OVERVIEW);
    const cover = new Float32Array(wide + 2);
    for (const number of rows[0].length ? rows[0] : rows[1]) {
      const a = LEFT + data.start[number] * scale, b = LEFT + data.end[number] * scale;
      for (let x = Math.floor(a); x <= Math.floor(b); x++) cover[x] += Math.max(0, Math.min(b, x + 1) - Math.max(a, x));
    }
    context.fillStyle = colours.spread;
    for (let x = LEFT; x < wide; x++) {
      context.globalAlpha = Math.min(1, cover[x]);
      context.fillRect(x, 4, 1, OVERVIEW);
    }
    context.globalAlpha = 1;
    context.strokeStyle = colours.reference;
    context.lineWidth = 1.5;
    context.strokeRect(LEFT + low * scale, 4, Math.max(2, (high - low) * scale), OVERVIEW);
  }
  function cause() { // from what the bar under the pointer waited for
    const before = over < 0 ? -1 : data.cause[over];
    if (before < 0) return;
    const y = (number) => TOP + data.kinds[data.work[number]].lane * PITCH + BAR / 2;
    const a = px(data.end[before]), b = px(data.start[over]);
    context.strokeStyle = context.fillStyle = colours.reference;
    context.lineWidth = 1.8;
    context.beginPath();
    context.moveTo(Math.max(LEFT, a), y(before));
    context.bezierCurveTo(a + 14, y(before), b - 14, y(over), Math.max(LEFT, b), y(over));
    context.stroke();
    context.beginPath(); context.arc(Math.max(LEFT, b), y(over), 3.5, 0, 7); context.fill();
  }
  function draw() {
    const ratio = window.devicePixelRatio || 1;
    wide = Math.floor(box.clientWidth);
    canvas.width = wide * ratio; canvas.height = height * ratio; canvas.style.height = height + "px";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, wide, height);
    axis();
    data.lanes.forEach((name, lane) => {
      const top = TOP + lane * PITCH;
      context.textAlign = "left";
      context.fillStyle = colours.ink; context.font = "600 12.5px system-ui, sans-serif";
      context.fillText(name, 0, top + 12);
      context.fillStyle = colours.muted; context.font = "11.5px system-ui, sans-serif";
      context.fillText(Math.round(data.busy[lane] * 100) + " % busy", 0, top + 27);
      context.fillStyle = colours.grid;
      context.fillRect(LEFT, top + BAR + 8, wide - LEFT, 1);
      drawLane(rows[lane], top);
    });
    overview();
    cause();
  }
  let asked = false;
  const redraw = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(); }); } };

  function show(from, to) {
    const span = Math.min(data.ns, Math.max(200, to - from));
    low = Math.min(Math.max(0, from), data.ns - span);
    high = low + span;
    redraw();
  }
  const zoom = (factor, at) => { const span = (high - low) * factor; show(at - ((at - low) / (high - low)) * span, at + ((high - at) / (high - low)) * span); };

  function under(event) {
    const rect = canvas.getBoundingClientRect();
    const x = event.clientX - rect.left, y = event.clientY - rect.top;
    const lane = Math.floor((y - TOP) / PITCH);
    if (x < LEFT || lane < 0 || lane >= rows.length) return -1;
    const row = rows[lane], at = ns(x), slack = (high - low) / (wide - LEFT);
    const place = first(row, at - slack);
    return place < row.length && data.start[row[place]] <= at + slack ? row[place] : -1;
  }
  function say(event) {
    over = under(event);
    tip.hidden = over < 0;
    if (over >= 0) {
      const kind = data.kinds[data.work[over]], [where, source] = data.lines[data.line[over]];
      const before = data.cause[over];
      const other = before < 0 ? "" : data.kinds[data.work[before]].name + " at " + data.lines[data.line[before]][0] +
        (data.kinds[data.work[before]].lane === kind.lane ? " (same engine)" : " on " + data.lanes[data.kinds[data.work[before]].lane]);
      const parts = [
        ["b", kind.name + " into " + data.tensors[data.into[over]]],
        ["code", where + "  " + source],
        ["span", time(data.start[over]) + " to " + time(data.end[over]) + ", " + (data.end[over] - data.start[over]).toLocaleString("en") + " ns" + (kind.tail ? ", seen " + kind.tail.toLocaleString("en") + " ns later" : "")],
        ["div", other ? "waited for " + other : "waited for nothing"],
        ["div", data.critical[over] ? "on the critical path" : ""],
      ];
      tip.replaceChildren(...parts.filter(([, text]) => text).map(([tag, text]) => { const node = document.createElement(tag); node.textContent = text; return node; }));
      const rect = box.getBoundingClientRect(), x = event.clientX - rect.left;
      tip.style.left = Math.max(0, Math.min(x + 14, wide - tip.offsetWidth - 4)) + "px";
      tip.style.top = (event.clientY - rect.top + 18) + "px";
    }
    redraw();
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const x = event.clientX - canvas.getBoundingClientRect().left;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) show(low + event.deltaX * (high - low) / wide, high + event.deltaX * (high - low) / wide);
    else zoom(Math.exp(event.deltaY * 0.0015), Math.min(high, Math.max(low, ns(x))));
    say(event);
  }, { passive: false });
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId); canvas.classList.add("moving");
    const rect = canvas.getBoundingClientRect();
    if (event.clientY - rect.top < TOP - 8 && event.clientX - rect.left > LEFT) {
      const at = ((event.clientX - rect.left - LEFT) / (wide - LEFT)) * data.ns, half = (high - low) / 2;
      show(at - half, at + half);
    }
    grip = { x: event.clientX, low, high };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) return say(event);
    const by = (grip.x - event.clientX) * (grip.high - grip.low) / (wide - LEFT);
    show(grip.low + by, grip.high + by);
  });
  const drop = () => { grip = null; canvas.classList.remove("moving"); };
  canvas.addEventListener("pointerup", drop);
  canvas.addEventListener("pointercancel", drop);
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; over = -1; redraw(); });
  canvas.addEventListener("dblclick", () => show(0, data.ns));
  box.addEventListener("keydown", (event) => {
    const span = high - low, middle = (low + high) / 2;
    const act = { "+": () => zoom(0.6, middle), "=": () => zoom(0.6, middle), "-": () => zoom(1 / 0.6, middle), "0": () => show(0, data.ns),
      ArrowLeft: () => show(low - span / 5, high - span / 5), ArrowRight: () => show(low + span / 5, high + span / 5) }[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const row of document.querySelectorAll("[data-line]")) {
    const pick = () => {
      line = line === Number(row.dataset.line) ? -1 : Number(row.dataset.line);
      for (const other of document.querySelectorAll("[data-line]")) other.classList.toggle("on", Number(other.dataset.line) === line);
      redraw();
    };
    row.addEventListener("click", pick);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") pick(); });
  }
  const asks = location.hash.match(/^#(\d+)-(\d+)$/); // lanes.html#1000-5000 shows from 1 to 5 us
  if (asks) { low = Number(asks[1]); high = Math.max(low + 200, Number(asks[2])); }
  new ResizeObserver(redraw).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { read(); redraw(); });
  read();
  redraw();
})();
