// Shows Rollout's components for the user that rollout-token recognises. The browser helper fetches, stores and renews
// the tokens.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Connections } from "./connections.jsx";

createRoot(document.getElementById("connections")).render(
  <StrictMode>
    <Connections />
  </StrictMode>,
);
