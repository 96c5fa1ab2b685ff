// Serves the example and rollout-token from the same origin, as a reverse proxy does in production.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const proxy = { "/rollout": process.env.ROLLOUT_TOKEN_SERVICE ?? "http://127.0.0.1:8080" };

export default defineConfig({
  plugins: [react()],
  server: { proxy },
  preview: { proxy },
  build: { chunkSizeWarningLimit: 1024 }, // avoids a warning, because Rollout's package is large
});
