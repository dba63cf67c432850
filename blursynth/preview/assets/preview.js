"use strict";
// Compare, single layers and flicker. The slider is a native range input: mouse, touch and arrow keys come with it.
(() => {
  const stages = [...document.querySelectorAll(".stage:not(.single)")]; // a single picture has nothing to compare
  const flickering = new Set();
  let phase = 0;

  const tag = (stage, left, right) => {
    stage.querySelector(".tag.l").textContent = left;
    stage.querySelector(".tag.r").textContent = right || "";
  };
  const names = (stage) => [...stage.querySelectorAll("img")].map((img) => img.dataset.name);

  function show(stage, mode) {
    const label = names(stage);
    stage.dataset.mode = mode;
    if (mode === "compare") tag(stage, label[0], label[1]);
    else tag(stage, label[Number(mode)]);
  }
  function tick() {
    phase ^= 1;
    for (const stage of flickering) show(stage, stage.dataset.flicker.split(",")[phase]);
  }
  function choose(card, mode) {
    const stage = card.querySelector(".stage");
    if (mode !== "compare" && mode !== "flicker" && !stage.querySelector(".l" + mode)) return;
    flickering.delete(stage);
    if (mode === "flicker") {
      flickering.add(stage);
      show(stage, stage.dataset.flicker.split(",")[phase]);
    } else show(stage, mode);
    for (const b of card.querySelectorAll(".modes button")) b.setAttribute("aria-pressed", String(b.dataset.mode === mode));
  }

  const cards = stages.map((stage) => stage.closest(".sample"));
  const all = document.querySelector(".toolbar .modes") || document.createElement("div"); // no sample was kept: no toolbar
  const chooseAll = (mode) => {
    // What was left out may show frames: its layers are others than the rest's.
    for (const card of cards) if (!card.classList.contains("rejected") || mode === "compare" || mode === "flicker") choose(card, mode);
    for (const b of all.children) b.setAttribute("aria-pressed", String(b.dataset.mode === mode));
  };
  const unpressAll = () => { for (const b of all.children) b.setAttribute("aria-pressed", "false"); };

  for (const card of cards) {
    const stage = card.querySelector(".stage");
    const input = stage.querySelector("input");
    input.addEventListener("input", () => stage.style.setProperty("--x", input.value + "%"));
    // A range input's thumb lags a touch that starts elsewhere; place the divider under the finger at once.
    input.addEventListener("pointerdown", (e) => {
      const box = stage.getBoundingClientRect();
      input.value = String(100 * (e.clientX - box.left) / box.width);
      stage.style.setProperty("--x", input.value + "%");
    });
    for (const b of card.querySelectorAll(".modes button"))
      b.addEventListener("click", () => { choose(card, b.dataset.mode); unpressAll(); });
  }
  for (const b of all.children) b.addEventListener("click", () => chooseAll(b.dataset.mode));

  let hovered = null;
  for (const card of cards) {
    card.addEventListener("pointerenter", () => { hovered = card; });
    card.addEventListener("pointerleave", () => { hovered = null; });
  }
  const current = () => document.activeElement.closest(".sample") || hovered;
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const mode = { c: "compare", 1: "0", 2: "1", 3: "2", f: "flicker" }[e.key.toLowerCase()];
    const card = current();
    if (mode !== undefined) {
      if (card) { choose(card, mode); unpressAll(); } else chooseAll(mode);
    } else if (e.key === "j" || e.key === "k") {
      const here = cards.findIndex((c) => c.getBoundingClientRect().bottom > 80);
      const next = cards[Math.min(cards.length - 1, Math.max(0, (here < 0 ? 0 : here) + (e.key === "j" ? 1 : -1)))];
      if (next) { next.scrollIntoView({ behavior: "auto", block: "start" }); next.querySelector("input").focus({ preventScroll: true }); }
    }
  });

  const root = document.documentElement;
  document.querySelector(".theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  setInterval(tick, 450); // 1.1 full turns a second: far below the three flashes that may harm
})();
