// A trained pair's samples being refined on a page with no kernel behind it: one plain module, for the book's pages and,
// through anywidget, for Jupyter (live.py). Top down: the networks, the samplers, what a worker does, what a reader sees,
// and the component that plays it. n points in two dimensions are 2n numbers in a Float64Array, point by point.
// tests/test_live.py holds the numbers against the toolkit's, and presses the controls.

// --- networks: leaky ReLU between affine layers, forward and the gradient in the input, for a block of points -------
// Each layer keeps room for a block, so that nothing is made anew at a step; four more points than are asked for may
// be computed from what an earlier block left there, and nobody reads them.

export function unpackNetwork({ sizes, weights }, block) {
  const bytes = Uint8Array.from(atob(weights), (character) => character.charCodeAt(0));
  const values = Float64Array.from(new Float32Array(bytes.buffer)); // each layer's weight, row by row, then its bias
  let at = 0, input = new Float64Array(block * sizes[0]);
  return sizes.slice(1).map((rows, l) => {
    const cols = sizes[l];
    const weight = values.subarray(at, (at += rows * cols));
    const bias = values.subarray(at, (at += rows));
    const turned = weight.map((_, i) => weight[(i % rows) * cols + Math.floor(i / rows)]);
    const transposed = { rows: cols, cols: rows, weight: turned, bias: new Float64Array(cols) };
    const layer = { rows, cols, weight, bias, transposed, input, output: new Float64Array(block * rows), slope: new Float64Array(block * cols) };
    input = layer.output;
    return layer;
  });
}

export function affine({ rows, cols, weight, bias }, x, n, y, leak) { // two rows with four points: six numbers read for eight products
  for (let i = 0; i < n; i += 4) {
    const xa = i * cols, xb = xa + cols, xc = xb + cols, xd = xc + cols;
    for (let j = 0; j < rows; j += 2) {
      const l = Math.min(j + 1, rows - 1); // where their number is odd, the last row once more
      let pa = bias[j], pb = pa, pc = pa, pd = pa, qa = bias[l], qb = qa, qc = qa, qd = qa;
      for (let k = 0, v = j * cols, w = l * cols; k < cols; k++) {
        const p = weight[v + k], q = weight[w + k], a = x[xa + k], b = x[xb + k], c = x[xc + k], d = x[xd + k];
        pa += p * a; pb += p * b; pc += p * c; pd += p * d;
        qa += q * a; qb += q * b; qc += q * c; qd += q * d;
      }
      const ya = i * rows, yb = ya + rows, yc = yb + rows, yd = yc + rows;
      y[ya + j] = pa < 0 ? leak * pa : pa; y[yb + j] = pb < 0 ? leak * pb : pb; y[yc + j] = pc < 0 ? leak * pc : pc; y[yd + j] = pd < 0 ? leak * pd : pd;
      y[ya + l] = qa < 0 ? leak * qa : qa; y[yb + l] = qb < 0 ? leak * qb : qb; y[yc + l] = qc < 0 ? leak * qc : qc; y[yd + l] = qd < 0 ? leak * qd : qd;
    }
  }
}

export function forward(network, n) { // from the first layer's input to the last one's output
  network.forEach((layer, l) => affine(layer, layer.input, n, layer.output, l + 1 < network.length ? 0.2 : 1));
  return network.at(-1).output;
}

export function pullback(network, slope, n) { // from the gradient in the output to that in the input
  for (let l = network.length - 1; l >= 0; l--) {
    const { transposed, input, slope: next } = network[l];
    affine(transposed, slope, n, next, 1);
    if (l > 0) for (let i = 0; i < n * transposed.rows; i++) if (input[i] <= 0) next[i] *= 0.2;
    slope = next;
  }
  return slope;
}

// --- the pair: x = G(z), d(G(z)) and its gradient in z ----------------------------------------------------------------

export function unpackPair(pair, block = 64) { // a block's numbers and a layer's weights fit the fast memory of a processor
  return { ...pair, block, ones: new Float64Array(block).fill(1), generator: unpackNetwork(pair.generator, block), logit: unpackNetwork(pair.logit, block) };
}

export function score({ generator, logit, block, ones }, z, slopes = true) {
  const n = z.length / 2, x = new Float64Array(2 * n), logits = new Float64Array(n), grad = new Float64Array(slopes ? 2 * n : 0);
  for (let i = 0; i < n; i += block) {
    const m = Math.min(block, n - i);
    generator[0].input.set(z.subarray(2 * i, 2 * (i + m)));
    logit[0].input.set(forward(generator, m));
    x.set(logit[0].input.subarray(0, 2 * m), 2 * i);
    logits.set(forward(logit, m).subarray(0, m), i);
    if (slopes) grad.set(pullback(generator, pullback(logit, ones, m), m).subarray(0, 2 * m), 2 * i);
  }
  return slopes ? { z, x, logits, grad } : { z, x, logits };
}

export function measure({ centers, std }, { x, logits }) { // which points are of high quality, how many in each mode, and the logits' sum
  const near = new Uint8Array(logits.length), perMode = new Array(centers.length).fill(0);
  let logitSum = 0;
  for (let i = 0; i < logits.length; i++) {
    let least = Infinity, mode = 0;
    for (let k = 0; k < centers.length; k++) {
      const square = (x[2 * i] - centers[k][0]) ** 2 + (x[2 * i + 1] - centers[k][1]) ** 2;
      if (square < least) [least, mode] = [square, k];
    }
    near[i] = least < (4 * std) ** 2;
    perMode[mode] += near[i];
    logitSum += logits[i];
  }
  return { near, perMode, logitSum };
}

// --- samplers: step(pair, state, settings, draws) gives the next state; the state holds the pair's scores at z ------

export function begin(pair, z, first = z) {
  return { ...score(pair, z), first, start: z, moment: new Float64Array(z.length), count: 0 };
}

export function langevin(pair, state, { stepSize, adjust }, { noise, share }) { // DDLS
  const { low, high } = pair, width = high - low, scale = Math.sqrt(stepSize);
  const image = state.z.map((z, i) => z + (stepSize / 2) * state.grad[i] + scale * noise[i]);
  const phase = image.map((z) => (((z - low) % (2 * width)) + 2 * width) % (2 * width)); // the box's walls are mirrors
  const next = score(pair, phase.map((p) => low + (p > width ? 2 * width - p : p)));
  return select(next, state, (i) => {
    let logAlpha = next.logits[i] - state.logits[i];
    for (const k of [2 * i, 2 * i + 1]) {
      const sign = phase[k] > width ? -1 : 1;
      const backward = (state.z[k] - image[k] - (stepSize / 2) * sign * next.grad[k]) / scale;
      logAlpha += (noise[k] ** 2 - backward ** 2) / 2;
    }
    return !adjust || share[i] < Math.exp(logAlpha);
  });
}

export function velocityWeight(divergence) {
  return {
    kl: () => 1, js: (d) => 1 / (1 + Math.exp(-d)), logd: (d) => 1 / (1 + Math.exp(d)),
    reverse_kl: Math.exp, pearson_chi2: (d) => 2 * Math.exp(-d), squared_hellinger: (d) => Math.exp(d / 2) / 2,
  }[divergence];
}

export function gradientFlow(pair, state, { stepSize, gamma, divergence }, { noise }) { // DGflow
  const weights = state.logits.map(velocityWeight(divergence)), scale = Math.sqrt(2 * stepSize * gamma);
  const z = state.z.map((z, i) => z + stepSize * weights[i >> 1] * state.grad[i] + scale * noise[i]);
  return select(score(pair, project(pair, z)), state, (i) => Number.isFinite(z[2 * i] + z[2 * i + 1]));
}

export function transport(pair, state, { stepSize }) { // DOT: Adam with β = (0, 0.9)
  const lipschitz = state.lipschitz ?? steepest(pair, state.first.slice(0, 2 * 1024));
  const count = state.count + 1, moment = state.moment.slice();
  const z = state.z.map((z, i) => {
    const j = i ^ 1, away = z - state.start[i], distance = Math.hypot(away, state.z[j] - state.start[j]);
    const grad = (distance > 0 ? away / distance : 0) - state.grad[i] / lipschitz;
    moment[i] = 0.9 * moment[i] + 0.1 * grad ** 2;
    return z - (stepSize * grad) / (Math.sqrt(moment[i] / (1 - 0.9 ** count)) + 1e-8);
  });
  return { ...select({ ...score(pair, project(pair, z)), moment }, state, () => true), lipschitz, count };
}

export function metropolis(pair, state, settings, { proposal, share }) { // MH-GAN
  const next = score(pair, proposal.map((u) => pair.low + (pair.high - pair.low) * u), false);
  return select(next, state, (i) => share[i] < Math.exp(next.logits[i] - state.logits[i]));
}

export function steepest(pair, z) { // DOT's Lipschitz constant: the largest slope between two of the points
  const { logits } = score(pair, z, false);
  let most = 0;
  for (let i = 0; i < logits.length; i++)
    for (let j = 0; j < i; j++) {
      const distance = Math.sqrt((z[2 * i] - z[2 * j]) ** 2 + (z[2 * i + 1] - z[2 * j + 1]) ** 2);
      if (distance > 0) most = Math.max(most, Math.abs(logits[i] - logits[j]) / distance);
    }
  return most;
}

export function project({ low, high }, z) {
  return z.map((value) => Math.min(Math.max(value, low), high));
}

export function select(next, state, accepted) { // a point that is refused, or is nowhere, stays where it was
  const n = next.logits.length;
  for (let i = 0; i < n; i++) {
    if (Number.isFinite(next.logits[i]) && accepted(i)) continue;
    for (const key in next) {
      const size = next[key].length / n;
      for (let k = i * size; k < (i + 1) * size; k++) next[key][k] = state[key][k];
    }
  }
  return { ...state, ...next };
}

// --- randomness, and what a worker does ---------------------------------------------------------------------------------

export function randomness(seed) { // mulberry32: uniform on [0, 1)
  let state = Math.imul(seed + 1, 0x9e3779b9);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function uniform(random, n) {
  const u = new Float64Array(n);
  for (let i = 0; i < n; i++) u[i] = random();
  return u;
}

export function normal(random, n) { // Box and Muller: two from two
  const values = new Float64Array(n);
  for (let i = 0; i < n; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - random())), angle = 2 * Math.PI * random();
    values[i] = radius * Math.cos(angle);
    values[i + 1] = radius * Math.sin(angle); // past an odd end there is no room, and nothing happens
  }
  return values;
}

export function refinement(data) { // what a worker keeps of the pair's samples, and how it goes on
  const pair = unpackPair(data), steps = { ula: langevin, mala: langevin, dgflow: gradientFlow, dot: transport, mh: metropolis };
  let state, random;
  return {
    begin({ z, first, seed }) {
      [state, random] = [begin(pair, z, first), randomness(seed)];
    },
    step(settings) {
      const n = state.logits.length;
      const draws = { noise: normal(random, 2 * n), share: uniform(random, n), proposal: uniform(random, 2 * n) };
      state = steps[settings.method](pair, state, { ...settings, adjust: settings.method === "mala" }, draws);
    },
    tell: () => ({ x: state.x, ...measure(pair, state) }),
  };
}

export function serve(scope, scene) { // in a worker: {begin} or {step}, each answered by what there is to tell
  scope.onmessage = ({ data: { begin: from, step, settings } }) => {
    if (from) scene.begin(from, settings);
    if (step) scene.step(settings);
    scope.postMessage(scene.tell(settings));
  };
}

export function hire({ maths, scene, data }, count) { // workers, made of the functions' own text: they need no address
  const source = `"use strict";\n${[...maths, scene, serve].join("\n")}\nserve(self, ${scene.name}(${JSON.stringify(data ?? null)}));`;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const workers = Array.from({ length: count }, () => new Worker(address));
  const ask = (worker, message) => new Promise((answered, failed) => {
    worker.onmessage = (event) => answered(event.data);
    worker.onerror = failed;
    worker.postMessage(message);
  });
  return {
    ask: (messages) => Promise.all(workers.map((worker, i) => ask(worker, messages[i]))),
    dismiss: () => workers.forEach((worker) => worker.terminate()),
  };
}

// --- what a reader sees: the controls, the questions to the workers, the figures and the picture --------------------

const METHODS = { // label, and the step size's logarithm to begin with
  ula: ["DDLS, unadjusted (ULA)", -4], mala: ["DDLS, adjusted (MALA)", -4], dgflow: ["DGflow", -4], dot: ["DOT", -2], mh: ["MH-GAN", null],
};
const DIVERGENCES = { kl: "KL", js: "JS", logd: "log D", reverse_kl: "reverse KL", pearson_chi2: "Pearson χ²", squared_hellinger: "squared Hellinger" };
const plain = (value) => String(Number(value.toPrecision(2)));
const signed = (value, plus = "") => (value < 0 ? "−" : plus) + Math.abs(value).toFixed(2);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const power = (value) => plain(10 ** value);

export function refinementView({ pair, count = 2000, start = {} }) {
  const controls = [
    { name: "method", label: "Method", options: Object.fromEntries(Object.entries(METHODS).map(([key, [label]]) => [key, label])), value: "dgflow" },
    { name: "divergence", label: "Divergence", options: DIVERGENCES, value: "kl", shown: ({ method }) => method === "dgflow" },
    { name: "logStepSize", label: "Step size", range: [-6, -1, 0.1], format: power, shown: ({ method }) => method !== "mh",
      follow: ({ method }) => METHODS[method][1], value: METHODS[start.method ?? "dgflow"][1] ?? -4 },
    { name: "gamma", label: "Noise γ", range: [0, 0.5, 0.01], format: plain, value: 0.1, shown: ({ method }) => method === "dgflow" },
    { name: "steps", label: "Steps", range: [10, 400, 10], format: String, value: 50, keep: true },
  ];
  for (const control of controls) control.value = start[control.name] ?? control.value;
  const flat = pair.centers.flat(), edge = Math.max(...flat.map(Math.abs)) * 1.18;
  let before;
  const merge = (parts) => {
    const modes = pair.centers.map((_, k) => parts.reduce((sum, { perMode }) => sum + perMode[k], 0));
    return {
      parts, quality: modes.reduce((a, b) => a + b) / count,
      modes: modes.filter(Boolean).length, logit: parts.reduce((sum, { logitSum }) => sum + logitSum, 0) / count,
    };
  };
  return {
    maths: [
      unpackNetwork, affine, forward, pullback, unpackPair, score, measure, begin, langevin, velocityWeight, gradientFlow, transport,
      metropolis, steepest, project, select, randomness, uniform, normal,
    ],
    scene: refinement, data: pair, workers: 8, controls, // at most: no more than the machine has processors
    label: `${count} samples of a trained generator, moved by its discriminator; circles mark the 25 modes`,
    key: "Blue points lie within 4 σ of a mode, inside a circle; orange ones do not.",
    settings: (values) => ({ ...values, stepSize: 10 ** values.logStepSize }),
    begin(seed, workers) { // every worker its share of the same latents
      const random = randomness(seed), z = uniform(random, 2 * count).map((u) => pair.low + (pair.high - pair.low) * u);
      const cut = (i) => 2 * Math.round((i * count) / workers);
      return Array.from({ length: workers }, (_, i) => ({ z: z.slice(cut(i), cut(i + 1)), first: z.slice(0, 2048), seed: 1 + seed * workers + i }));
    },
    told(parts, step) {
      const now = merge(parts);
      if (step === 0) before = now;
      return now;
    },
    figures: (now, { steps }, step) => ({
      Step: `${step} of ${steps}`, "High quality": `${percent(now.quality)}, from ${percent(before.quality)}`,
      "Modes found": `${now.modes} of ${pair.centers.length}`, "Mean logit": `${signed(now.logit)}, change ${signed(now.logit - before.logit, "+")}`,
    }),
    draw(pen, side, now, { ink, good, bad }) {
      const at = (value) => ((value + edge) / (2 * edge)) * side, radius = ((4 * pair.std) / (2 * edge)) * side;
      for (const kind of [0, 1]) {
        pen.fillStyle = kind ? good : bad;
        for (const { x, near } of now.parts)
          near.forEach((value, i) => value === kind && pen.fillRect(at(x[2 * i]) - 1, side - at(x[2 * i + 1]) - 1, 2, 2));
      }
      pen.strokeStyle = ink;
      for (const [a, b] of pair.centers) {
        pen.beginPath();
        pen.arc(at(a), side - at(b), radius, 0, 7);
        pen.stroke();
      }
    },
  };
}

// --- the component: a stage with a canvas, figures and controls, played while it is on screen -----------------------

const STYLE = `
.live-on > .live-still { display: none; }
.live-stage { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: flex-start; font-family: system-ui, sans-serif; font-size: 0.95rem; line-height: 1.4; }
.live-stage canvas { flex: 1 1 17rem; width: 100%; min-width: 0; max-width: 27rem; aspect-ratio: 1; }
.live-side { flex: 1 1 15rem; min-width: 0; max-width: 27rem; }
.live-side label { display: grid; grid-template-columns: 8.2rem 1fr 4rem; gap: 0 0.6rem; align-items: center; min-height: 2.2rem; }
.live-side label[hidden] { display: none; }
.live-side select { grid-column: 2 / 4; }
.live-side select, .live-side button { font: inherit; color: inherit; background: transparent; border: 1px solid currentColor; border-radius: 0.3rem; padding: 0.25rem 0.6rem; }
.live-side select option { color: #000; background: #fff; }
.live-side input { width: 100%; min-width: 0; accent-color: currentColor; }
.live-value, .live-side dd { font-variant-numeric: tabular-nums; }
.live-side button { min-height: 2.2rem; margin: 0.5rem 0.5rem 0.5rem 0; cursor: pointer; }
.live-side :is(select, button, input):focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
.live-side dl { display: grid; grid-template-columns: auto 1fr; gap: 0.1rem 0.8rem; margin: 0.3rem 0 0; }
.live-side :is(dt, dd) { margin: 0; font-weight: normal; }
.live-side dd { text-align: right; }
.live .live-stage .live-side :is(dt, dd) { overflow-wrap: normal; }
.live-side p { margin: 0.6rem 0 0; }
.live-said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@media print { .live-still ~ .live-stage { display: none; } .live-on > .live-still { display: block; } }
`;

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

function field(control, changed) { // a labelled control; `show` writes its value out and hides it where it has no part
  const { name, label, options, range, format, value } = control;
  const said = make("span", { className: "live-value", ariaHidden: "true" });
  const input = options
    ? make("select", { name }, ...Object.entries(options).map(([key, text]) => make("option", { value: key }, text)))
    : make("input", { name, type: "range", min: range[0], max: range[1], step: range[2] });
  input.value = value;
  const element = make("label", {}, make("span", {}, label), input, ...(range ? [said] : []));
  input.addEventListener("input", () => changed(control));
  return {
    control, element, input, read: () => (range ? Number(input.value) : input.value),
    show(values) {
      element.hidden = control.shown ? !control.shown(values) : false;
      if (range) input.setAttribute("aria-valuetext", (said.textContent = format(Number(input.value))));
    },
  };
}

export function mount(root, view) {
  if (view.mount) return view.mount(root); // a view that plays itself
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const count = Math.min(view.workers, navigator.hardwareConcurrency ?? 2), crew = hire(view, count);
  const fields = view.controls.map((control) => field(control, changed));
  const values = () => Object.fromEntries(fields.map(({ control, read }) => [control.name, read()]));
  const canvas = make("canvas"), list = make("dl"), said = make("p", { className: "live-said", role: "status" });
  const play = make("button", { type: "button" }), again = make("button", { type: "button" }, "Other points");
  const stage = make("div", { className: "live-stage" }, canvas, make("div", { className: "live-side" },
    ...fields.map(({ element }) => element), play, again, list, make("p", {}, view.key), said));
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", view.label);
  root.append(make("style", {}, STYLE), stage);
  root.classList.add("live-on");

  let now = null, step = 0, seed = 0, stale = true, playing = !calm, visible = false, busy = false, coming = null;
  const ended = () => step >= values().steps;

  function changed(control) { // another setting begins anew from the same points; more steps only go on
    for (const { control: other, input } of fields)
      if (other.follow && control.name === "method") input.value = other.follow(values()) ?? input.value;
    if (!control.keep || step > values().steps) stale = true;
    playing = control.keep ? playing || (!calm && !ended()) : !calm;
    refresh();
    tick();
  }

  const ask = (messages) => crew.ask(messages.map((message) => ({ ...message, settings: view.settings(values()) })));
  const further = () => ask(new Array(count).fill({ step: true }));

  async function tick() { // one picture a frame; the next step is computed meanwhile
    if (busy) return;
    busy = true;
    while (visible && (stale || (playing && !ended()))) {
      if (stale) {
        await coming; // nobody wants it any more, but the workers answer in turn
        [stale, step, coming] = [false, 0, ask(view.begin(seed, count).map((from) => ({ begin: from })))];
      } else step += 1;
      const parts = await (coming ??= further());
      coming = null;
      if (stale) continue;
      now = view.told(parts, step);
      if (playing && !ended()) coming = further();
      await new Promise(requestAnimationFrame);
      refresh();
    }
    if (playing && now && !stale && ended()) {
      playing = false;
      said.textContent = Object.entries(view.figures(now, values(), step)).map(([name, value]) => `${name}: ${value}`).join(". ");
    }
    refresh();
    busy = false;
  }

  function refresh() {
    const current = values();
    for (const each of fields) each.show(current);
    play.textContent = playing ? "Pause" : ended() ? "Play again" : "Play";
    root.dataset.step = step;
    if (now === null) return;
    list.replaceChildren(...Object.entries(view.figures(now, current, step)).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    const side = Math.round(canvas.clientWidth * devicePixelRatio) || 1;
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const pen = canvas.getContext("2d"), ink = getComputedStyle(root).color;
    const light = (ink.match(/[\d.]+/g) ?? [0]).slice(0, 3).reduce((sum, channel) => sum + Number(channel), 0) > 382; // light ink: a dark page
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, side, side);
    view.draw(pen, side / devicePixelRatio, now, { ink, good: light ? "#56b4e9" : "#0173b2", bad: light ? "#f2a541" : "#c06c00" });
  }

  play.addEventListener("click", () => {
    if (!playing && ended()) stale = true;
    playing = !playing;
    refresh();
    tick();
  });
  again.addEventListener("click", () => {
    [seed, stale, playing] = [seed + 1, true, !calm];
    refresh();
    tick();
  });
  const watchers = [
    new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; tick(); }),
    new ResizeObserver(refresh), new MutationObserver(refresh),
  ];
  watchers[0].observe(root);
  watchers[1].observe(canvas);
  watchers[2].observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "class"] });
  refresh();
  return () => {
    watchers.forEach((watcher) => watcher.disconnect());
    crew.dismiss();
  };
}
