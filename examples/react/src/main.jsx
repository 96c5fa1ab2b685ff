// The page: Rollout's own components, for the user that rollout-token recognises. The browser helper gets, stores and renews
// the tokens.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Connections } from "./connections.jsx";

createRoot(document.getElementById("connections")).render(
  <StrictMode>
    <Connections />
  </StrictMode>,
);
