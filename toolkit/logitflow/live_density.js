// A potential's Fokker–Planck density on a grid beside its particles, both computed in the page. Shown by the component
// of live.js, to which live.py appends this file. The equations are chapter 5's.

export function potential(name) { // U and U′
  return {
    "double well": [(x) => (x * x - 1) ** 2 + 0.2 * x, (x) => 4 * x * (x * x - 1) + 0.2],
    "one well": [(x) => 2 * x * x, (x) => 4 * x],
    "three wells": [(x) => 0.8 * (1 - Math.cos(4 * x)) + 0.15 * x ** 4, (x) => 3.2 * Math.sin(4 * x) + 0.6 * x ** 3],
    "flat bottom": [(x) => x ** 6 / 8, (x) => 0.75 * x ** 5],
  }[name];
}

export function rates(U, gamma, low, high, cells) { // Scharfetter–Gummel: rates of jumps to the right and to the left
  const width = (high - low) / cells, x = Float64Array.from({ length: cells }, (_, i) => low + width * (i + 0.5));
  const bernoulli = (s) => (Math.abs(s) < 1e-6 ? 1 - s / 2 : s / Math.expm1(s));
  const s = Array.from(x.subarray(1), (right, i) => (U(right) - U(x[i])) / gamma);
  const rate = gamma / width ** 2;
  return { x, width, right: s.map((v) => rate * bernoulli(v)), left: s.map((v) => rate * bernoulli(-v)) };
}

export function implicitEuler({ right, left }, rho, tau) { // solve (I − τA) ρ′ = ρ, a tridiagonal system
  const n = rho.length, upper = new Float64Array(n), next = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const below = i > 0 ? -tau * right[i - 1] : 0;
    const diagonal = 1 + tau * ((right[i] ?? 0) + (i > 0 ? left[i - 1] : 0));
    const pivot = diagonal - below * (i > 0 ? upper[i - 1] : 0);
    upper[i] = (-tau * (left[i] ?? 0)) / pivot;
    next[i] = (rho[i] - below * (i > 0 ? next[i - 1] : 0)) / pivot;
  }
  for (let i = n - 2; i >= 0; i--) next[i] -= upper[i] * next[i + 1];
  return next;
}

export function eulerMaruyama(slope, gamma, x, h, noise) {
  const scale = Math.sqrt(2 * gamma * h);
  return x.map((value, i) => value - h * slope(value) + scale * noise[i]);
}

export function density() { // what the worker keeps of it, and how it goes on
  const low = -3, high = 3, cells = 240, tau = 0.02, substeps = 10;
  const gauss = (x) => Math.exp(-((x - 0.4) ** 2) / 0.08);
  let x, rho, time, random;
  const normalised = (values, width) => values.map((value) => value / (width * values.reduce((a, b) => a + b)));
  return {
    begin({ seed, count }) {
      [random, time] = [randomness(seed), 0];
      x = normal(random, count).map((n) => 0.4 + 0.2 * n);
      const grid = rates(() => 0, 1, low, high, cells);
      rho = normalised(grid.x.map(gauss), grid.width);
    },
    step({ potential: name, gamma }) {
      const [U, slope] = potential(name);
      rho = implicitEuler(rates(U, gamma, low, high, cells), rho, tau);
      for (let k = 0; k < substeps; k++) x = eulerMaruyama(slope, gamma, x, tau / substeps, normal(random, x.length));
      time += tau;
    },
    tell({ potential: name, gamma }) {
      const [U] = potential(name), grid = rates(U, gamma, low, high, cells);
      return { x, rho, time, grid: grid.x, potential: grid.x.map(U), gibbs: normalised(grid.x.map((v) => Math.exp(-U(v) / gamma)), grid.width) };
    },
  };
}

export function densityView({ count = 4000, start = {} }) {
  const potentials = ["double well", "one well", "three wells", "flat bottom"];
  const controls = [
    { name: "potential", label: "Potential", options: Object.fromEntries(potentials.map((name) => [name, name])), value: "double well" },
    { name: "gamma", label: "Temperature γ", range: [0.1, 2, 0.05], format: plain, value: 0.5 },
    { name: "steps", label: "Time", range: [50, 1000, 50], format: (steps) => plain(steps * 0.02), value: 250, keep: true },
  ];
  for (const control of controls) control.value = start[control.name] ?? control.value;
  const bars = 60, histogram = (x) => {
    const height = new Float64Array(bars);
    for (const value of x) if (Math.abs(value) < 3) height[Math.floor(((value + 3) / 6) * bars)] += bars / 6 / x.length;
    return height;
  };
  const distance = (a, b, width) => (a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) * width) / 2;
  return {
    maths: [potential, rates, implicitEuler, eulerMaruyama, randomness, normal], scene: density, workers: 1, controls,
    label: "A density and the histogram of its particles, coming to rest in a potential",
    key: "Blue: the density on the grid. Bars: the particles. Dashed: the Gibbs density. Thin: the potential.",
    settings: (values) => values,
    begin: (seed) => [{ seed, count }],
    told: ([now]) => ({ ...now, height: histogram(now.x) }),
    figures(now) {
      const per = now.rho.length / bars, coarse = now.height.map((_, b) => now.rho.slice(b * per, (b + 1) * per).reduce((a, v) => a + v) / per);
      return {
        Time: now.time.toFixed(2), "Density and histogram differ by": percent(distance(coarse, now.height, 6 / bars)),
        "Density and rest differ by": percent(distance(now.rho, now.gibbs, 6 / now.rho.length)),
      };
    },
    draw(pen, side, now, { ink, good, bad }) {
      const top = 2.2, at = (x) => ((x + 3) / 6) * side, up = (value) => side * (1 - value / top);
      pen.fillStyle = bad;
      pen.globalAlpha = 0.45;
      now.height.forEach((value, b) => pen.fillRect((b / bars) * side, up(value), side / bars - 1, side - up(value)));
      const curve = (values, color, dashes, width) => {
        [pen.strokeStyle, pen.lineWidth] = [color, width];
        pen.setLineDash(dashes);
        pen.beginPath();
        values.forEach((value, i) => pen.lineTo(at(now.grid[i]), up(value)));
        pen.stroke();
      };
      curve(now.potential.map((value) => 0.3 * (value + 0.4)), ink, [], 1);
      pen.globalAlpha = 1;
      curve(now.gibbs, ink, [6, 5], 2);
      curve(now.rho, good, [], 3);
    },
  };
}
