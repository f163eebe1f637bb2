// Refinement paths of images or texts that were computed beforehand, a frame a step, on a slider. Shown with the controls
// of live.js, to which live.py appends this file.

const PATH_STYLE = `
.live-stage canvas.live-sheet { aspect-ratio: auto; image-rendering: pixelated; }
.live-lines { flex: 1 1 17rem; min-width: 0; max-width: 100%; overflow-x: auto; margin: 0; padding: 0; list-style: none; }
.live-lines li { margin: 0; line-height: 1.9; }
.live-lines code { font: 0.85rem monospace; white-space: pre; color: inherit; background: none; border: none; padding: 0; }
.live-path label { grid-template-columns: auto 1fr auto; }
.live-path .live-value { text-align: right; white-space: nowrap; }
.live-lines mark { color: #1a1a1a; background: #ffd58a; text-decoration: underline; padding: 0; }
`;

export function sheetOfImages({ png, size, count }, arrived) { // one image file: a row a frame, a column a latent
  const columns = Math.min(4, count), gap = 2, sheet = make("img");
  const element = make("canvas", { className: "live-sheet", width: columns * (size + gap) - gap, height: Math.ceil(count / columns) * (size + gap) - gap });
  element.setAttribute("role", "img");
  sheet.onload = arrived;
  sheet.src = `data:image/png;base64,${png}`;
  return {
    element,
    draw(frame) {
      const pen = element.getContext("2d");
      for (let i = 0; i < count; i++)
        pen.drawImage(sheet, i * size, frame * size, size, size, (i % columns) * (size + gap), Math.floor(i / columns) * (size + gap), size, size);
    },
  };
}

export function marked(first, line) { // runs of characters, those that differ from the first text's marked
  const runs = [];
  [...line].forEach((character, i) => {
    const differs = character !== first[i];
    if (runs.at(-1)?.differs !== differs) runs.push({ differs, text: "" });
    runs.at(-1).text += character;
  });
  return runs;
}

export function linesOfText(frames) { // a list of the latents' texts
  const element = make("ol", { className: "live-lines", tabIndex: 0 }), firsts = frames[0].map((line) => [...line]);
  return {
    element,
    draw(frame) {
      element.replaceChildren(...frames[frame].map((line, i) => make("li", {}, make("code", {},
        ...marked(firsts[i], line).map(({ differs, text }) => (differs ? make("mark", {}, text) : text))))));
    },
  };
}

export function pathView({ images, texts, figures, label, key }) {
  return { mount: (root) => mountPath(root, { images, texts, figures, label, key }) };
}

function mountPath(root, { images, texts, figures, label, key }) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches, last = figures.length - 1, wait = Math.min(450, 5000 / figures.length);
  const picture = images ? sheetOfImages(images, () => refresh()) : linesOfText(texts);
  const [counted] = Object.keys(figures[0]);
  const slider = field({ name: "frame", label: counted, range: [0, last, 1], format: (frame) => figures[frame][counted], value: 0 }, sought);
  const play = make("button", { type: "button" }), list = make("dl"), said = make("p", { className: "live-said", role: "status" });
  root.append(make("style", {}, STYLE + PATH_STYLE), make("div", { className: "live-stage" }, picture.element,
    make("div", { className: "live-side live-path" }, slider.element, play, list, make("p", {}, key), said)));
  root.classList.add("live-on");
  const longest = Math.max(...figures.map((each) => each[counted].length));
  slider.element.querySelector(".live-value").style.minWidth = `${longest}ch`; // so that the slider keeps its length

  let playing = !calm, visible = false, timer = null;
  const told = () => Object.entries(figures[slider.read()]);

  function refresh() {
    const words = told().map(([name, value]) => `${name}: ${value}`).join(". ");
    slider.show({});
    picture.draw(slider.read());
    picture.element.setAttribute("aria-label", `${label}. ${words}`);
    list.replaceChildren(...told().slice(1).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    play.textContent = playing ? "Pause" : slider.read() === last ? "Play again" : "Play";
    root.dataset.step = slider.read();
    if (!playing && visible) said.textContent = words; // at rest, so that nobody is talked over
  }

  function tick() { // a frame a tick, while it is played and on screen
    clearTimeout(timer);
    if (!playing || !visible) return;
    timer = setTimeout(() => {
      slider.input.value = slider.read() + 1;
      playing = slider.read() < last;
      refresh();
      tick();
    }, wait);
  }

  function sought() { // whoever takes the slider stops the play
    playing = false;
    refresh();
    tick();
  }

  play.addEventListener("click", () => {
    if (!playing && slider.read() === last) slider.input.value = 0;
    playing = !playing;
    refresh();
    tick();
  });
  const watcher = new IntersectionObserver((entries) => { visible = entries.at(-1).isIntersecting; tick(); });
  watcher.observe(root);
  refresh();
  return () => {
    watcher.disconnect();
    clearTimeout(timer);
  };
}
