// The sample in Rollout's docs for React 17 and newer, rendered into the page. The token function and the component
// must stay as in Rollout's docs, because they must work unchanged with server.docs_alias.
import { createRoot } from "react-dom/client";
import { RolloutLinkProvider as Provider, CredentialsManager } from "@rollout/link-react";

// The provider calls the test's fake of Rollout's API.
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
