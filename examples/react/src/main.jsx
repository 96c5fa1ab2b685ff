// The page: Rollout's own components, for the user whom rollout-token recognises. How tokens are fetched, kept and
// renewed is the helper's business.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { Connections } from "./connections.jsx";

createRoot(document.getElementById("connections")).render(
  <StrictMode>
    <Connections />
  </StrictMode>,
);
