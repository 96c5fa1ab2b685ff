// The sample of Rollout's docs for React 17 and newer, with a root to render it into. Its token function and its
// component must stay as in the docs: they must work unchanged with server.docs_alias.
import { createRoot } from "react-dom/client";
import { RolloutLinkProvider as Provider, CredentialsManager } from "@rollout/link-react";

// The fake server replaces Rollout.
const RolloutLinkProvider = (props) => <Provider apiBaseUrl={import.meta.env.VITE_ROLLOUT_API_URL} {...props} />;

function fetchRolloutToken() {
  return fetch("/rollout-token")
    .then((resp) => resp.json())
    .then((data) => data.token);
}

export function App() {
  return (
    <div id="app">
      <RolloutLinkProvider token={fetchRolloutToken}>
        <CredentialsManager />
      </RolloutLinkProvider>
    </div>
  );
}

createRoot(document.getElementById("connections")).render(<App />);
