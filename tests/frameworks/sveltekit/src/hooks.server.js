import { sessions } from "./sessions.js";

/** @type {import("@sveltejs/kit").Handle} */
export async function handle({ event, resolve }) {
  event.locals.user = sessions.get(event.cookies.get("session"));
  return resolve(event);
}
