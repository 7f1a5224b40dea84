// The live feed of a page: one websocket, events by number, replay after a break, and an honest badge.
//
// The page (and every fragment that htmx brings in) names what it has shown in `data-live-topics`. Each event becomes
// `live:event` with the event as detail, and `live:<noun>` and `live:any` for fragments, which fetch themselves again
// through the ordinary, permission-checked view. Those two are gathered here, first and last of every window: the
// throttle of htmx drops what comes inside its window, and the last event is the one that must not be lost.

const WINDOW_MS = 250;
const TICK_MS = 10_000;
const SILENT_MS = 45_000; // the server says that it is alive every 20 s
const SLOWEST_RETRY_MS = 15_000;
const MOST_FEEDS = 24;
const SAY_MS = 5_000;
// Close codes after which trying again cannot help: not signed in, no right, bad topics.
const FINAL_CODES = { 4401: "Signed out: not live", 4403: "No right to live updates", 4400: "Not live: reload the page" };

const feeds = new Map(); // feed -> last number shown
const trainings = new Map(); // training -> last round known
const windows = new Map(); // event name -> whether another one came inside the window
let socket = null;
let attempts = 0;
let paused = false;
let held = false;
let lastHeard = 0;
let liveAt = null;

const clock = (moment) => moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function show(state, text) {
  const badge = document.getElementById("live");
  document.body.dataset.live = state;
  if (!badge) return;
  badge.dataset.live = state;
  document.getElementById("live-text").textContent = text;
}

function showLive() {
  liveAt = null;
  if (paused) show("paused", `Paused at ${clock(new Date())}`);
  else show("live", "Live");
}

function showLost() {
  liveAt ??= new Date();
  const since = attempts > 2 ? `Not live since ${clock(liveAt)}, last known state` : "Reconnecting";
  show(attempts > 2 ? "lost" : "reconnecting", since);
}

// Learn the topics of an element; answers whether one of them is new to this socket.
function learn(root) {
  let isNew = false;
  for (const element of root.querySelectorAll("[data-live-topics]")) {
    for (const topic of element.dataset.liveTopics.split(",").filter(Boolean)) {
      const [name, since] = topic.split("@");
      const training = name.startsWith("training:") ? name.slice("training:".length) : null;
      const known = training ? trainings : feeds;
      const key = training ?? name;
      if (known.has(key)) continue;
      // A round of a followed training comes by itself; only other news needs another socket.
      isNew ||= training !== null || name.startsWith("federation:") || trainings.size === 0;
      known.set(key, Number(since));
    }
  }
  return isNew;
}

function address() {
  const topics = [...feeds].map(([feed, since]) => `${feed}@${since}`);
  for (const [training, number] of trainings) topics.push(`training:${training}@${number}`);
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${location.host}/ws/live?topics=${encodeURIComponent(topics.join(","))}`;
}

function connect() {
  if (feeds.size + trainings.size === 0) return show("lost", "Nothing to follow yet");
  const mine = new WebSocket(address());
  socket = mine;
  lastHeard = Date.now();
  mine.addEventListener("message", (message) => {
    if (mine === socket) hear(JSON.parse(message.data));
  });
  mine.addEventListener("close", (closing) => {
    if (mine !== socket) return;
    socket = null;
    if (closing.code in FINAL_CODES) return show("lost", FINAL_CODES[closing.code]);
    attempts += 1;
    showLost();
    const wait = Math.min(SLOWEST_RETRY_MS, 200 * 2 ** attempts) * (0.5 + Math.random() / 2);
    setTimeout(() => socket ?? connect(), wait);
  });
}

function reconnect() {
  const old = socket;
  socket = null;
  old?.close();
  connect();
}

function hear(event) {
  lastHeard = Date.now();
  switch (event.type) {
    case "ready":
      attempts = 0;
      showLive();
      return;
    case "alive":
      return;
    case "reset":
      for (const [feed, number] of Object.entries(event.feeds)) feeds.set(feed, number);
      for (const [training, number] of Object.entries(event.trainings)) trainings.set(training, number);
      tell("live:all");
      tell("live:any");
      return;
    default:
      take(event);
  }
}

function take(event) {
  if (event.seq <= (feeds.get(event.feed) ?? 0)) return; // shown already
  feeds.set(event.feed, event.seq);
  if (event.type === "round.opened" && trainings.has(event.data.training)) {
    trainings.set(event.data.training, Math.max(trainings.get(event.data.training), event.data.number));
    forgetOldRounds();
  }
  if (paused) {
    held = true;
    return;
  }
  document.body.dispatchEvent(new CustomEvent("live:event", { detail: event }));
  tell(`live:${event.type.split(".")[0]}`);
  tell("live:any");
}

// Rounds that are long over say nothing more; without this the topics would grow with every round.
function forgetOldRounds() {
  for (const feed of feeds.keys()) {
    if (feeds.size <= MOST_FEEDS) return;
    if (feed.startsWith("round:")) feeds.delete(feed);
  }
}

function tell(name) {
  if (windows.has(name)) {
    windows.set(name, true);
    return;
  }
  windows.set(name, false);
  setTimeout(() => {
    const again = windows.get(name);
    windows.delete(name);
    if (again) tell(name);
  }, WINDOW_MS);
  document.body.dispatchEvent(new CustomEvent(name));
}

function pause(button) {
  paused = !paused;
  button.setAttribute("aria-pressed", String(paused));
  button.textContent = paused ? "Resume updates" : "Pause updates";
  if (socket?.readyState === WebSocket.OPEN) showLive();
  if (!paused && held) {
    held = false;
    tell("live:all");
    tell("live:any");
  }
}

// Say a sentence to those who listen instead of looking. News waits, the newest one of five seconds is said; what a
// person asked for by a key is said at once.
let said = "";
let sayTimer = null;
export function say(text, waitMs = SAY_MS) {
  said = text;
  if (waitMs === 0) {
    clearTimeout(sayTimer);
    sayTimer = null;
    sayNow();
  } else {
    sayTimer ??= setTimeout(sayNow, waitMs);
  }
}

function sayNow() {
  sayTimer = null;
  const announcer = document.getElementById("announcer");
  if (announcer.textContent !== said) announcer.textContent = said;
}

function freshenTimes() {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const seconds = Math.max(0, Math.round((Date.now() - Date.parse(element.dateTime)) / 1000));
    const text =
      seconds < 90 ? `${seconds} s` :
      seconds < 5400 ? `${Math.round(seconds / 60)} min` :
      seconds < 129_600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86_400)} days`;
    element.textContent = `${text} ago`;
  }
}

// What a person opened or began to type stays as it is when a fragment is replaced.
const opened = new Set();
const typed = new Map();
document.body.addEventListener("htmx:beforeSwap", (event) => {
  opened.clear();
  typed.clear();
  for (const details of event.detail.target.querySelectorAll("details[open][id]")) opened.add(details.id);
  for (const input of event.detail.target.querySelectorAll("input[id]:not([type=hidden])")) {
    typed.set(input.id, [input.value, input.checked]);
  }
});
document.body.addEventListener("htmx:afterSwap", (event) => {
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  for (const [id, [value, checked]] of typed) {
    const input = document.getElementById(id);
    if (input) [input.value, input.checked] = [value, checked];
  }
  if (learn(event.detail.target)) reconnect();
  const sentence = event.detail.target.querySelector("[data-announce]");
  if (sentence) say(sentence.textContent.trim());
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("#live-pause");
  if (button) pause(button);
});
for (const wake of ["online", "pageshow"]) addEventListener(wake, () => socket ?? (attempts > 0 && connect()));
setInterval(() => {
  freshenTimes();
  if (socket && Date.now() - lastHeard > SILENT_MS) socket.close();
  if (!paused && document.visibilityState === "visible") document.body.dispatchEvent(new CustomEvent("live:tick"));
}, TICK_MS);

learn(document);
connect();
