// Rollout's components with what they leave to the page: a user who is signed out, a service that is down, a
// token that is over.
import { CredentialsManager, RolloutLinkProvider, useCredentials } from "@rollout/link-react";
import "@rollout/link-react/style.css";
import { useCallback, useEffect, useState } from "react";
import { createTokenSource } from "rollout-token-client";

// One for the page, outside of components. Both addresses are undefined unless you set them: then they are
// /rollout/token on this origin, and Rollout's own.
const { VITE_ROLLOUT_TOKEN_URL, VITE_ROLLOUT_API_URL } = import.meta.env;
const source = createTokenSource({ url: VITE_ROLLOUT_TOKEN_URL });

export function Connections() {
  const [problem, setProblem] = useState();

  // The provider would wait for ever after an error, showing nothing: so the page takes its place.
  const token = useCallback(async () => {
    try {
      return await source.fresh();
    } catch (error) {
      setProblem(error);
      throw error;
    }
  }, []);

  if (problem?.status === 401) {
    return <p role="alert">You are signed out. <a href="/login">Sign in</a></p>;
  }
  if (problem) {
    return (
      <p role="alert">
        Your connections cannot be shown right now ({problem.code}).{" "}
        <button onClick={() => setProblem()}>Try again</button>
      </p>
    );
  }
  return (
    <RolloutLinkProvider token={token} apiBaseUrl={VITE_ROLLOUT_API_URL}>
      <ListAgain />
      <CredentialsManager />
    </RolloutLinkProvider>
  );
}

// Listing credentials gets another token if Rollout refuses this one, saving and deleting do not (link-react 0.14):
// on a page that was left open, they would say "Unauthorized" for ever. So list now and then while the page is seen,
// and at once when somebody comes back to it.
function ListAgain() {
  const { refetch } = useCredentials();
  useEffect(() => {
    const list = () => document.visibilityState === "visible" && refetch();
    const timer = setInterval(list, 60_000);
    document.addEventListener("visibilitychange", list);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", list);
    };
  }, [refetch]);
}
