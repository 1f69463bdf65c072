// Everything here improves pages that work without it.

const STATES = {
  waiting: ["◌", "Waiting"],
  fetching: ["▶", "Fetching the repository"],
  building: ["▶", "Building the image"],
  pushing: ["▶", "Storing the image"],
  built: ["▶", "Built"],
  launching: ["▶", "Launching the server"],
  ready: ["✔", "Ready"],
  failed: ["✖", "Failed"],
};
const LINES_SHOWN = 5000;

const element = (id) => document.getElementById(id);

/** Follows one click's events, and goes to the server when it is ready. */
function follow(place) {
  const source = new EventSource(place.dataset.events);
  let pending = [];

  const showLog = () => {
    const log = element("log");
    const lines = pending.map((text) => {
      const item = document.createElement("li");
      item.textContent = text.replace(/\u001b\[[0-9;?]*[A-Za-z]/g, "").replace(/\n$/, "") || " ";
      return item;
    });
    pending = [];
    log.append(...lines);
    while (log.childElementCount > LINES_SHOWN) log.firstElementChild.remove();
  };

  const showState = (phase) => {
    const known = STATES[phase];
    if (!known || element("state-text").textContent === known[1]) return;
    element("state").className = `state ${phase}`;
    element("state").querySelector(".icon").textContent = known[0];
    element("state-text").textContent = known[1];
  };

  const showBuild = (name) => {
    element("build-link").href = `/builds/${name}`;
    element("log-link").href = `/builds/${name}/log`;
    element("retry").action = `/builds/${name}/retry`;
    element("links").hidden = false;
  };

  const end = (event) => {
    source.close();
    if (event.phase === "ready" && event.url) {
      const target = new URL(event.url + place.dataset.path);
      target.searchParams.append("token", event.token);
      element("server-link").href = target.href;
      element("done").hidden = false;
      window.location.replace(target.href);
    } else if (event.phase === "failed") {
      element("message").textContent = event.reason ? `${event.message} (${event.reason})` : event.message;
      element(event.build ? "retry" : "again").hidden = false;
    }
  };

  source.addEventListener("message", (message) => {
    const event = JSON.parse(message.data);
    const phase = (event.phase || "").toLowerCase();
    if (event.message && phase !== "ready") {
      if (pending.length === 0) requestAnimationFrame(showLog);
      pending.push(event.message);
    }
    if (event.build) showBuild(event.build);
    if (event.usual_seconds) element("message").textContent = `This usually takes ${Math.ceil(event.usual_seconds)} s.`;
    showState(phase);
    if (phase === "ready" || phase === "failed") end(event);
  });
}

/** Shows link and badge of what the form names. */
function showBadge(form) {
  const kind = form.provider.selectedOptions[0];
  const typed = form.repository.value.trim();
  const path = typed.includes("://") ? new URL(typed).pathname : typed;
  const repository = kind.dataset.encode
    ? encodeURIComponent(typed)
    : encodeURI(path.replace(/^\/+|\/+$/g, "").replace(/\.git$/, ""));
  const ref = form.ref.value.trim() || kind.dataset.ref;
  const urlpath = form.urlpath.value.trim();
  const query = urlpath ? `?${new URLSearchParams({ urlpath })}` : "";
  const host = form.dataset.host;
  const link = `${host}v2/${kind.value}/${repository}${ref ? `/${encodeURI(ref)}` : ""}${query}`;
  element("badge").hidden = typed === "";
  element("link").value = link;
  element("markdown").value = `[![Binder](${host}badge_logo.svg)](${link})`;
}

const place = element("follow");
if (place) follow(place);

const form = element("launch-form");
if (form) {
  form.addEventListener("input", () => {
    try {
      showBadge(form);
    } catch {
      element("badge").hidden = true; // an address that is not finished yet
    }
  });
}
