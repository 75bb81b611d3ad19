// In MLflow's page: while nobody looks at it, it asks for no news. Its list of runs asks every 30 seconds, and a run's artifacts every 10, in a
// tab that is hidden, too: one that is forgotten would keep the server awake for good.
{
  const POLLS = ["/runs/search", "/metrics/get-history-bulk-interval", "/traces/search", "/runs/get", "/model-versions/search", "/model-versions/get"];
  const ask = window.fetch;
  let seen = Date.now();
  const held = [];
  const away = () => document.hidden || Date.now() - seen > AWAY_MS;
  const back = () => {
    if (document.hidden) return;
    seen = Date.now();
    held.splice(0).forEach((go) => go());
  };
  for (const sign of ["pointermove", "pointerdown", "keydown", "wheel", "focus"]) addEventListener(sign, back, { capture: true, passive: true });
  document.addEventListener("visibilitychange", back);
  window.fetch = async (what, how) => {
    const path = new URL(what.url ?? what, document.baseURI).pathname;
    if (POLLS.some((poll) => path.endsWith(poll)) && away()) await new Promise((go) => held.push(go));
    return ask(what, how);
  };
}
