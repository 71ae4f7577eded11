// Pictures over time that are zoomed and scrolled together, with a ruler, and a line where the players are.
{
  const strip = document.getElementById("strip"), ruler = document.getElementById("ruler");
  const zoom = document.getElementById("zoom"), playhead = document.getElementById("playhead");
  const scroll = strip.parentElement, seconds = Number(strip.dataset.seconds);
  const player = () => document.querySelector(".listen audio:not([hidden])");
  const draw = () => {
    const width = strip.clientWidth;
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600].find(
      (each) => (each / seconds) * width >= 64,
    ) ?? seconds;
    ruler.replaceChildren();
    for (let index = 0; index * step < seconds; index++) {
      const tick = document.createElement("span");
      tick.style.left = `${(100 * index * step) / seconds}%`;
      tick.textContent = `${Number((index * step).toFixed(2))} s`;
      ruler.append(tick);
    }
  };
  const place = () => (playhead.style.left = `${(100 * player().currentTime) / seconds}%`);
  const follow = () => {
    place();
    if (!player().paused) requestAnimationFrame(follow);
  };
  // What is in the middle stays there; while the line is in sight, that does.
  const scale = () => {
    const x = (player().currentTime / seconds) * strip.clientWidth - scroll.scrollLeft;
    const middle = x >= 0 && x <= scroll.clientWidth ? x : scroll.clientWidth / 2;
    const at = (scroll.scrollLeft + middle) / strip.clientWidth;
    strip.style.width = `${100 * 2 ** Number(zoom.value)}%`;
    scroll.scrollLeft = at * strip.clientWidth - middle;
    draw();
  };
  zoom.addEventListener("input", scale);
  addEventListener("resize", draw);
  strip.addEventListener("click", (event) => {
    const time = ((event.clientX - strip.getBoundingClientRect().left) / strip.clientWidth) * seconds;
    player().currentTime = Math.min(time, Number(strip.dataset.played));
  });
  document.addEventListener("keydown", (event) => {
    const step = { "+": 0.5, "=": 0.5, "-": -0.5 }[event.key];
    if (!step || event.ctrlKey || event.metaKey) return;
    zoom.value = Number(zoom.value) + step;
    scale();
  });
  for (const audio of document.querySelectorAll(".listen audio")) {
    audio.addEventListener("play", follow);
    audio.addEventListener("seeking", place);
  }
  draw();
  place();
}
