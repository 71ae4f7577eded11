// Listening to versions of one recording. A ".listen" has a radio button and a player for each, in the same order, of
// which one is seen and heard; the others play along silently, so that switching keeps the time. A checkbox, if it has
// one, gives each player its data-volume, with which all are equally loud. Keys, anywhere on a page with one ".listen"
// and inside of it on others: X for the next version, Shift+X for the one before, digits for one of them, space to play.
const listens = document.querySelectorAll(".listen");
for (const listen of listens) {
  const players = [...listen.querySelectorAll("audio")];
  const choices = [...listen.querySelectorAll("input[type=radio]")];
  const same = listen.querySelector("input[type=checkbox]");
  const said = listen.querySelector("[role=status]");
  let chosen = 0;
  const factor = (player, matched) => (matched ? Number(player.dataset.volume ?? 1) : 1);
  const together = (player, other) => {
    // To seek while playing takes longer than what players are apart.
    if (Math.abs(player.currentTime - other.currentTime) > (other.paused ? 0 : 0.1))
      player.currentTime = other.currentTime;
  };
  const choose = (index) => {
    const before = players[chosen], matched = same?.checked;
    chosen = (index + players.length) % players.length;
    const player = players[chosen], silent = before.muted;
    together(player, before);
    player.volume = Math.min(1, (before.volume / factor(before, matched)) * factor(player, matched));
    for (const each of players) each.hidden = each.muted = each !== player;
    player.muted = silent;
    if (!before.paused) player.play();
    choices[chosen].checked = true;
    if (said) said.textContent = choices[chosen].labels[0].textContent;
  };
  if (!players[0].canPlayType("audio/ogg; codecs=opus")) listen.append("This browser cannot play Ogg Opus; use a newer one.");
  players.forEach((player, index) => {
    const others = players.filter((each) => each !== player);
    player.hidden = player.muted = index > 0;
    player.volume = factor(player, same?.checked);
    player.addEventListener("play", () => {
      if (index !== chosen) return;
      for (const each of document.querySelectorAll("audio")) if (!players.includes(each)) each.pause();
      for (const other of others) together(other, player), other.play();
    });
    player.addEventListener("pause", () => index === chosen && others.forEach((other) => other.pause()));
    player.addEventListener("seeked", () => index === chosen && others.forEach((other) => together(other, player)));
  });
  choices.forEach((choice, index) => choice.addEventListener("change", () => choose(index)));
  same?.addEventListener("change", () => {
    const player = players[chosen];
    player.volume = Math.min(1, (player.volume / factor(player, !same.checked)) * factor(player, same.checked));
  });
  (listens.length === 1 ? document : listen).addEventListener("keydown", (event) => {
    const digit = Number(event.key);
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search], input[type=text]"))
      return;
    if (event.key.toLowerCase() === "x") choose(chosen + (event.shiftKey ? -1 : 1));
    else if (digit >= 1 && digit <= players.length) choose(digit - 1);
    else if (event.key === " " && !event.target.matches("audio, a, button, summary, input[type=checkbox]"))
      players[chosen].paused ? players[chosen].play() : players[chosen].pause();
    else return;
    event.preventDefault();
  });
}
// Of players that stand alone one is heard at a time; one that begins while another plays goes on where that was.
const alone = document.querySelectorAll("audio:not(.listen audio)");
for (const player of alone)
  player.addEventListener("play", () => {
    for (const other of alone)
      if (other !== player && !other.paused) {
        player.currentTime = other.currentTime;
        other.pause();
      }
  });
