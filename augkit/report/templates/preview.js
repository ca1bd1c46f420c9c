// The slider puts other pictures that were drawn in advance into the rows; what was done is told on hover and focus.
(() => {
  const { shots, originals, dials } = JSON.parse(document.getElementById("data").textContent);
  const board = document.getElementById("board"), tip = document.getElementById("tip");
  const tiles = [...board.querySelectorAll("img[data-at]")], at = (tile) => Number(tile.dataset.at);
  for (const image of board.querySelectorAll("img")) shots[image.dataset.shot] ??= image.src;
  const which = document.getElementById("which"), slider = document.getElementById("position");

  function tell(tile) {
    const [what, label] = tile.dataset.words.split("; label "), steps = what.split(", then ");
    const list = document.createElement("ol"), head = document.createElement("strong");
    for (const step of label ? [...steps, `label ${label}`] : steps) list.appendChild(document.createElement("li")).textContent = step;
    head.textContent = tile.dataset.name;
    tip.replaceChildren(head, list);
    tip.hidden = false;
    const box = tile.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = box.bottom + 6 + own.height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - own.width - 8))}px`;
    tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
  }
  const hide = () => { tip.hidden = true; };

  function show(frame) {
    let changed = 0;
    for (const tile of tiles) {
      const shot = frame ? frame.shots[at(tile)] : Number(tile.dataset.shot), same = shot === originals[at(tile) % originals.length];
      if (frame) {
        tile.src = shots[shot];
        tile.dataset.shot = shot;
        tile.alt = `${tile.dataset.name}: ${frame.words[at(tile)]}`;
        tile.parentElement.querySelector(".words").textContent = frame.words[at(tile)];
      }
      tile.dataset.words = tile.parentElement.querySelector(".words").textContent;
      tile.parentElement.classList.toggle("same", same);
      changed += !same;
    }
    document.getElementById("changed").textContent = `${changed} of ${tiles.length} pictures changed`;
    if (!tip.hidden && tiles.includes(document.activeElement)) tell(document.activeElement);
  }
  if (slider) {
    const dial = () => dials[which ? which.value : 0];
    const turn = () => {
      const frame = dial().frames[slider.value];
      document.getElementById("now").textContent = frame.label;
      slider.setAttribute("aria-valuetext", `${dial().name} ${frame.label}`);
      show(frame);
    };
    slider.addEventListener("input", turn);
    which?.addEventListener("change", () => {
      const { name, what, start, frames } = dial(), [first, last] = document.getElementById("ends").children;
      slider.max = frames.length - 1; slider.value = start;
      first.textContent = frames[0].label; last.textContent = frames.at(-1).label;
      document.getElementById("name").textContent = name;
      document.getElementById("what").textContent = `${what[0].toUpperCase()}${what.slice(1)}.`;
      turn();
    });
    which ? which.dispatchEvent(new Event("change")) : turn(); // a reload keeps what was chosen before
  } else show(null);

  const tells = document.getElementById("tell"), under = () => { board.classList.toggle("tell", tells.checked); hide(); };
  tells.addEventListener("change", under);
  under();

  // One stop for Tab; from there arrow keys reach every picture.
  const rows = [...board.querySelectorAll(".class")].map((row) => [...row.querySelectorAll("img[data-at]")]);
  let held = tiles[0];
  const hold = (tile) => { held.tabIndex = -1; held = tile; held.tabIndex = 0; };
  if (held) hold(held);
  board.addEventListener("keydown", (event) => {
    const row = rows.findIndex((one) => one.includes(event.target)), column = rows[row]?.indexOf(event.target), all = rows.flat();
    if (event.key === "Escape") hide();
    if (column === undefined) return;
    const beside = (step) => rows[row + step]?.[Math.min(column, rows[row + step].length - 1)];
    const goal = {
      ArrowRight: all[all.indexOf(event.target) + 1], ArrowLeft: all[all.indexOf(event.target) - 1], Home: rows[row][0],
      End: rows[row].at(-1), ArrowDown: beside(1), ArrowUp: beside(-1),
    }[event.key];
    if (!goal) return;
    event.preventDefault();
    goal.focus();
  });
  board.addEventListener("focusin", (event) => { if (tiles.includes(event.target)) { hold(event.target); tell(event.target); } });
  board.addEventListener("focusout", hide);
  board.addEventListener("pointerover", (event) => { if (tiles.includes(event.target)) tell(event.target); });
  board.addEventListener("pointerout", (event) => { if (tiles.includes(event.target) && event.target !== document.activeElement) hide(); });
  addEventListener("scroll", () => { tiles.includes(document.activeElement) && !tip.hidden ? tell(document.activeElement) : hide(); }, { passive: true });
})();
