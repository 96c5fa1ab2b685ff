import { sessions } from "../../sessions.js";

export function POST({ cookies }) {
  sessions.delete(cookies.get("session"));
  cookies.delete("session", { path: "/" });
  return new Response("ok");
}
