// The script for the page of `rollout-token dev`. The static text is in dev.html. The page fetches tokens with
// client.js, as an app does. The page's policy (Trusted Types) forbids innerHTML, so text is set as text content.
import { createTokenSource } from "./rollout/client.js";

const byId = (id) => document.getElementById(id);
// The service's origin, followed by server.base_path if it is set.
const origin = new URL(".", import.meta.url).href.slice(0, -1);

/** Shows a status message for four seconds, and announces it to screen readers. */
function say(text) {
  byId("status").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => byId("status").replaceChildren(), 4_000);
}

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

/** A table cell. Its label is shown on narrow screens, where each row is a list. */
function cell(label, textContent, className = "") {
  const made = element("td", { textContent, className });
  made.dataset.label = label;
  return made;
}

// ---- Requests ---------------------------------------------------------------------------------------------

const user = () => byId("user").value;

// fetch() sends each character of a header value as one byte, so each UTF-8 byte of the name becomes a character.
const asUser = (name) => ({ "X-Dev-User": String.fromCharCode(...new TextEncoder().encode(name)) });

let requests = 0;

/** Calls fetch() and adds the request to the page's log. */
async function logged(url, init, name = user()) {
  const started = performance.now();
  let response, body;
  requests++;
  try {
    response = await fetch(url, init);
    body = await response.clone().json();
    return response;
  } finally {
    const ms = Math.round(performance.now() - started);
    const status = response?.status;
    const good = status === 200;
    byId("log").prepend(
      element(
        "tr",
        {},
        cell("Time", new Date().toLocaleTimeString()),
        cell("Status", status ?? "none", good ? "good" : "bad"),
        cell("Code", good ? "token" : (body?.code ?? "unreachable")),
        cell("User", name || "(blank)"),
        cell("ms", ms),
        cell("Request id", response?.headers.get("X-Request-Id") ?? ""),
      ),
    );
    while (byId("log").rows.length > 100) byId("log").lastElementChild.remove();
    showLog();
  }
}

/** Shows the log table, or a message if it is empty. */
function showLog() {
  const empty = byId("log").rows.length === 0;
  byId("log-table").hidden = empty;
  byId("log-empty").hidden = !empty;
}

let answer; // the answer whose token is shown, with the time of its request
const answers = new Map(); // new answers by their token, until one of them is shown

const source = createTokenSource({
  headers: () => asUser(user()),
  fetch: async (...request) => {
    const asked = { wall: Date.now(), steady: performance.now() };
    const response = await logged(...request);
    if (response.ok) {
      const body = await response.clone().json();
      answers.set(body.token, { asked, ...body });
    }
    return response;
  },
});

let turn = 0; // counts calls to show(): after two clicks, only the second answer is shown

/** Calls `ask` for a token, shows the token or the error, and shows a status message. */
async function show(ask, words) {
  const mine = ++turn;
  source.clear(); // the user may have changed
  const slow = setTimeout(() => say("Waiting for the answer…"), 500);
  try {
    const token = await ask();
    if (mine !== turn) return;
    answer = answers.get(token);
    answers.clear();
    showToken();
    say(words());
  } catch (error) {
    if (mine !== turn) return;
    answer = undefined;
    showToken();
    byId("no-token").textContent = `${error.status ?? "No answer"} ${error.code}: ${error.message}`;
    say(`No token: ${error.code}`);
  } finally {
    clearTimeout(slow);
  }
}

const getToken = () =>
  show(source.fresh, () => `A token for ${answer.claims.sub}, valid for ${Math.round(answer.expires_in / 60)} minutes`);

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  getToken();
});
byId("renew").addEventListener("click", getToken);
for (const chip of document.querySelectorAll("[data-user]")) {
  chip.addEventListener("click", () => {
    byId("user").value = chip.dataset.user;
    showSnippet();
    getToken();
  });
}

byId("fifty").addEventListener("click", async () => {
  const before = requests;
  const fiftyTimes = async () => (await Promise.all(Array.from({ length: 50 }, () => source.get())))[0];
  await show(fiftyTimes, () => `50 calls to get(), ${requests - before === 1 ? "1 request" : `${requests - before} requests`}`);
});

byId("clear-log").addEventListener("click", () => {
  byId("log").replaceChildren();
  showLog();
  say("The log is empty");
});

// ---- The token ------------------------------------------------------------------------------------------------

const decode = (part) => {
  const binary = atob(part.replace(/-/g, "+").replace(/_/g, "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (character) => character.charCodeAt(0))));
};

const MEANINGS = {
  typ: "a JSON Web Token",
  alg: "HMAC with SHA-512",
  iss: "the client id: yours, or a generated one",
  sub: "the user",
};

function describe(list, members) {
  list.replaceChildren(
    ...Object.entries(members).flatMap(([name, value]) => {
      const time = (name === "iat" || name === "exp") && new Date(value * 1000).toLocaleTimeString();
      const meaning = time ? `${name === "iat" ? "issued at" : "expires at"} ${time}` : MEANINGS[name];
      const text = typeof value === "string" ? value : JSON.stringify(value);
      return [
        element("dt", { textContent: name }),
        element("dd", {}, text, ...(meaning ? [element("small", { textContent: meaning })] : [])),
      ];
    }),
  );
}

function showToken() {
  for (const id of ["result", "token-buttons"]) byId(id).hidden = !answer;
  byId("no-token").hidden = answer;
  if (!answer) return;
  const parts = answer.token.split(".");
  answer.claims = decode(parts[1]);
  [".head", ".claims", ".signature"].forEach((part, index) => {
    byId("token").querySelector(part).textContent = parts[index];
  });
  describe(byId("head"), decode(parts[0]));
  describe(byId("claims"), answer.claims);
  tick();
}

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** Updates the countdown every half second. Screen readers announce only the token's expiry. */
function tick() {
  if (!answer) return;
  const { asked, expires_in: life, refresh_in: refresh } = answer;
  const passed = Math.max(Date.now() - asked.wall, performance.now() - asked.steady) / 1000;
  const left = Math.max(0, Math.ceil(life - passed));
  const late = passed >= refresh;
  byId("left").textContent = left ? clock(left) : "expired";
  byId("left-label").textContent = left ? "Expires in" : "This token has";
  byId("life").value = left / life;
  byId("refresh").textContent = late
    ? "client.js requests the next token at the next get()."
    : `client.js requests the next token in ${clock(Math.ceil(refresh - passed))} (refresh_in), or at the first get() after that.`;
  byId("result").classList.toggle("late", late);
  if (!left && !byId("result").classList.contains("over")) say("The token has expired");
  byId("result").classList.toggle("over", !left);
}
setInterval(tick, 500);

// ---- Refusals -----------------------------------------------------------------------------------------------------

const SHOWN = ["content-type", "www-authenticate", "retry-after", "cache-control", "x-request-id"];

const formatAnswer = ({ status, headers, body }) =>
  [
    `HTTP/1.1 ${status}`,
    ...SHOWN.filter((name) => headers[name]).map((name) => `${name}: ${headers[name]}`),
    "",
    JSON.stringify(JSON.parse(body), null, 2),
  ].join("\n");

const formatResponse = async (response) =>
  formatAnswer({ status: response.status, headers: Object.fromEntries(response.headers), body: await response.text() });

/** Shows a response without a token, and marks the button that requested it. */
function showRefusal(pressed, { kind, why, text, curl, client = "" }) {
  for (const button of document.querySelectorAll("[data-show]")) button.setAttribute("aria-pressed", button === pressed);
  byId("refusal").hidden = false;
  byId("refusal-kind").textContent = kind;
  byId("refusal-kind").classList.toggle("real", kind === REAL);
  byId("refusal-why").textContent = why;
  byId("refusal-answer").textContent = text;
  byId("refusal-curl").hidden = !curl;
  byId("refusal-curl").querySelector("pre").textContent = curl ?? "";
  byId("refusal-client").textContent = client;
}

const ask = (name) => logged(`${origin}/rollout/token`, { method: "POST", headers: asUser(name) }, name);

const sample = async (code) => {
  const response = await fetch(`${origin}/dev/samples`);
  return formatAnswer((await response.json()).find((sample) => sample.code === code));
};

const REAL = "a real answer";
const SAMPLE = "a sample";

const refusals = {
  async 401() {
    return {
      kind: REAL,
      why: "The page requested a token for a user with an empty name, which is not a valid session. Without a session, the code is no_session.",
      text: await formatResponse(await ask("")),
      client: "client.js calls onSignedOut and throws an error with this code: let the user sign in.",
    };
  },
  async 429() {
    // By default, the rate limiter allows each user a burst of 20 requests.
    for (let request = 1; request <= 100; request++) {
      const response = await ask("in-a-hurry");
      if (response.status === 429) {
        return {
          kind: REAL,
          why: `The user “in-a-hurry” sent ${request} requests in a row. Other users have their own limit.`,
          text: await formatResponse(response),
          client: "client.js waits for Retry-After and retries inside the call, so your code gets a slow answer instead of an error.",
        };
      }
    }
    return { kind: REAL, why: "None of 100 requests in a row was refused: rate_limit is off, or its limits are high here.", text: "" };
  },
  async 403() {
    return {
      kind: SAMPLE,
      why: "The answer to a page whose origin is not in origins.allowed. The browser sets Origin, and a page cannot change it.",
      text: await sample("origin_not_allowed"),
      curl: `curl -i -X POST -H 'Origin: https://other.example' ${origin}/rollout/token`,
      client: "client.js throws the error at once. The user cannot fix it: change the configuration.",
    };
  },
  async 503() {
    return {
      kind: SAMPLE,
      why: "The answer if the session store, the provider’s keys or your app is unavailable. An outage signs no user out.",
      text: await sample("session_backend_unavailable"),
      client: "client.js waits for Retry-After and retries inside the call, with up to six attempts in half a minute.",
    };
  },
};

for (const button of document.querySelectorAll("[data-show]")) {
  button.addEventListener("click", async () => {
    try {
      const refusal = await refusals[button.dataset.show]();
      showRefusal(button, refusal);
      say(`Shown: ${refusal.kind}, ${refusal.text.split("\n", 1)[0]}`);
    } catch {
      say("This server cannot be reached");
    }
  });
}

// ---- Snippets ---------------------------------------------------------------------------------------------------------

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

const snippets = {
  fetch: {
    code: () => `const response = await fetch("${origin}/rollout/token", {
  method: "POST",
  credentials: "include",
});
const body = await response.json(); // errors are JSON too
if (!response.ok) throw new Error(body.code);
const token = body.token;`,
    note: "This is sufficient for one call. It does not wait and does not retry.",
  },
  "client.js": {
    code: () => `import { createTokenSource }
  from "${origin}/rollout/client.js";

const source = createTokenSource({
  url: "${origin}/rollout/token",
  onSignedOut: () => location.assign("/login"),
});

const api = "https://universal.rollout.com/api";
const response = await fetch(\`\${api}/credentials\`, {
  headers: { Authorization: \`Bearer \${await source.get()}\` },
});`,
    note: "get() stores the token until shortly before it expires. Concurrent calls share one request.",
  },
  React: {
    code: () => `import {
  CredentialsManager,
  RolloutLinkProvider,
} from "@rollout/link-react";
import "@rollout/link-react/style.css";
// Save ${origin}/rollout/client.js next to this file.
import { createTokenSource } from "./client.js";

// Create one source per page, outside of components.
const source = createTokenSource({
  url: "${origin}/rollout/token",
  onSignedOut: () => location.assign("/login"),
});

export const Connections = () => (
  <RolloutLinkProvider token={source.fresh}>
    <CredentialsManager />
  </RolloutLinkProvider>
);`,
    note: "Pass fresh, not get, because the provider stores the token until Rollout refuses it. examples/react is a complete app.",
  },
  "Rollout’s docs": {
    code: () => `const fetchRolloutToken = () =>
  fetch("${origin}/rollout-token")
    .then((response) => response.json())
    .then((data) => data.token);`,
    note: "The snippet of Rollout’s docs works unchanged if server.docs_alias is on, as it is here.",
  },
  curl: {
    code: () => `curl -sS -X POST -H ${quoted(`X-Dev-User: ${user()}`)} ${origin}/rollout/token`,
    note: "The service accepts X-Dev-User under dev only.",
  },
};
let chosen = "fetch";

function showSnippet() {
  byId("snippet").textContent = snippets[chosen].code();
  byId("snippet-note").textContent = snippets[chosen].note;
  byId("snippet-origin").hidden = chosen === "curl";
  byId("snippet").setAttribute("aria-labelledby", `tab-${Object.keys(snippets).indexOf(chosen)}`);
  for (const tab of byId("tabs").children) {
    const selected = tab.textContent === chosen;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
  }
}

// Keyboard support of the tabs pattern (ARIA Authoring Practices): arrows, Home and End.
const steps = { ArrowRight: (at) => at + 1, ArrowLeft: (at) => at - 1, Home: () => 0, End: () => -1 };
function movesInTabs(tab, index) {
  tab.addEventListener("keydown", (event) => {
    const to = steps[event.key]?.(index);
    if (to === undefined) return;
    event.preventDefault();
    const all = [...tab.parentElement.children];
    const next = all.at(to % all.length);
    next.click();
    next.focus();
  });
}
for (const [index, name] of Object.keys(snippets).entries()) {
  const tab = element("button", { type: "button", id: `tab-${index}`, textContent: name });
  tab.setAttribute("role", "tab");
  tab.setAttribute("aria-controls", "snippet");
  tab.addEventListener("click", () => {
    chosen = name;
    showSnippet();
  });
  movesInTabs(tab, index);
  byId("tabs").append(tab);
}
byId("user").addEventListener("input", showSnippet);
showSnippet();

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    say("The browser does not allow copying");
  }
}
byId("copy-token").addEventListener("click", () => copy(byId("token").textContent));
byId("copy-snippet").addEventListener("click", () => copy(byId("snippet").textContent));

byId("server").textContent = origin;

// ---- Your session -------------------------------------------------------------------------------------------------------

const views = [...byId("views").children];
for (const [index, tab] of views.entries()) {
  movesInTabs(tab, index);
  tab.addEventListener("click", () => {
    for (const each of views) {
      const selected = each === tab;
      each.setAttribute("aria-selected", selected);
      each.tabIndex = selected ? 0 : -1;
      byId(each.getAttribute("aria-controls")).hidden = !selected;
    }
  });
}

const own = async (path, init) => (await fetch(`${origin}${path}`, init)).json();
const paragraph = (textContent, className = "") => element("p", { textContent, className });

/** A list of a request's steps: those before the index `reached` succeeded; the step at that index, if any, failed. */
function flow(parts, reached) {
  const states = parts.map((_, index) => (index < reached ? "good" : index === reached ? "bad" : ""));
  const items = parts.map((part, index) => {
    const item = element("li", { className: states[index] }, element("span", { textContent: part }));
    if (states[index] === "bad") item.append(element("span", { className: "unseen", textContent: "stops here" }));
    return item;
  });
  return element("ol", { className: "flow" }, ...items);
}

const REACHED = { nothing: 0, place: 1, session: 3, subject: 5 };

/** The result of the checks before the extractors, such as the origin check. */
const showChecks = (checks, refused) =>
  element(
    "div",
    { className: "extractor" },
    element("h3", { textContent: `Before the extractors: ${refused ? "refused" : "allowed"}` }),
    ...checks.map((text) => paragraph(text, refused ? "" : "quiet")),
  );

function showStep({ name, kind, places, reached, says, shape, subjects, notes, decides }, refused) {
  const subject = /^subject = "(.*)"$/.exec(says)?.[1];
  const parts = [places.join(", ") || "no credential needed", kind, "session", subject ?? "subject", "token"];
  const more = [shape && `session with ${shape}`, subjects.length && `candidates for subject: ${subjects.join(", ")}`, ...notes];
  return element(
    "div",
    { className: "extractor" },
    element("h3", { textContent: `${name}${decides ? ": decides" : ""}` }),
    // A refused request gets no token, even if an extractor accepts its session.
    flow(parts, refused ? Math.min(REACHED[reached], 4) : REACHED[reached]),
    paragraph(says),
    ...more.filter(Boolean).map((text) => paragraph(text, "quiet")),
  );
}

function showCredential({ place, product, confidence, kinds, preset, needs_in_words: needs, subjects, page, section }) {
  const also = kinds.slice(1);
  return element(
    "div",
    { className: "credential" },
    element("h3", { textContent: `${place}: ${product} (${confidence})` }),
    paragraph(`kind ${kinds[0]}${preset ? `, preset ${preset}` : ""}${also.length ? `, or ${also.join(", ")}` : ""}. ${page}`, "quiet"),
    ...needs.map((need) => paragraph(`needs ${need}`)),
    ...(subjects.length ? [paragraph(`subject: ${subjects.join(" or ")}`)] : []),
    element("pre", { textContent: section }),
  );
}

byId("paste").addEventListener("submit", async (event) => {
  event.preventDefault();
  const slow = setTimeout(() => say("Asking the backends…"), 500);
  try {
    const body = new URLSearchParams({ request: byId("request").value });
    const { detail, problem = detail, request } = await own("/dev/explain", { method: "POST", body });
    const { credentials = [], checks = [], refused, steps = [], searched = [], answer, subject } = request ?? {};
    byId("found").replaceChildren(...credentials.map(showCredential));
    byId("found-empty").hidden = credentials.length > 0;
    byId("found-empty").textContent = problem ?? "No known credential found.";
    byId("flows").replaceChildren(...(request ? [showChecks(checks, refused)] : []), ...steps.map((step) => showStep(step, refused)));
    byId("searched").replaceChildren(...searched.map((textContent) => element("li", { textContent })));
    byId("answer").hidden = !request;
    byId("answer").textContent = subject === undefined || subject === null ? `Answer: ${answer}` : `Answer: ${answer}, a token for ${subject}`;
    say(problem ?? byId("answer").textContent);
  } catch {
    say("This server cannot be reached");
  } finally {
    clearTimeout(slow);
  }
});

/** Lists the service's requests. Called every second; does nothing while the page or its part with the list is hidden. */
async function showRecent() {
  if (document.hidden || byId("view-session").hidden) return;
  const recent = await own("/dev/requests").catch(() => undefined);
  if (!recent) return;
  byId("recent-empty").hidden = recent.length > 0;
  byId("recent-table").hidden = recent.length === 0;
  byId("recent").replaceChildren(
    ...recent.map(({ at, status, code, reason, extractor, subject, hint }) =>
      element(
        "tr",
        {},
        cell("Time", new Date(at * 1000).toLocaleTimeString()),
        cell("Status", status, status === 200 ? "good" : "bad"),
        cell("Code", status === 200 ? "token" : code),
        cell("Reason", [reason, hint].filter(Boolean).join(": ")),
        cell("Extractor", extractor ?? ""),
        cell("Subject", subject ?? ""),
      ),
    ),
  );
}
setInterval(showRecent, 1_000);
byId("tab-session").addEventListener("click", showRecent);

const inForce = await own("/dev/extractors");
byId("in-force").textContent = inForce.extractors.map(({ name, kind }) => (name === kind ? name : `${name} (${kind})`)).join(", ");
if (!inForce.every_caller_signed_in) byId("who").textContent = `Sessions are read by ${byId("in-force").textContent}`;
