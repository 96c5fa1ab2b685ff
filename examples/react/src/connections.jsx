// Shows Rollout's components, and handles the cases that they do not handle: a user who is signed out, a service that is
// down, and a token that expires while the page is open.
import { CredentialsManager, RolloutLinkProvider, useCredentials } from "@rollout/link-react";
import "@rollout/link-react/style.css";
import { useCallback, useEffect, useState } from "react";
import { createTokenSource } from "rollout-token/client";

// Create one token source per page, outside of components. Both variables are optional: the defaults are /rollout/token
// on the page's origin, and Rollout's own API.
const { VITE_ROLLOUT_TOKEN_URL, VITE_ROLLOUT_API_URL } = import.meta.env;
const source = createTokenSource({ url: VITE_ROLLOUT_TOKEN_URL });

export function Connections() {
  const [problem, setProblem] = useState();

  // After an error, the provider waits forever and shows only grey bars, so the page shows a message instead of it.
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

// In link-react 0.14, listing credentials gets a new token if Rollout refuses the current token, but saving and deleting
// do not: on a page that stays open, they would show "Unauthorized" permanently. So this component lists the credentials
// once a minute while the page is visible, and at once when it becomes visible again.
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
