import { sessions } from "../../sessions.js";

export async function POST({ request, cookies }) {
  const form = await request.formData();
  if (form.get("password") !== process.env.APP_PASSWORD) return new Response(null, { status: 403 });
  const id = crypto.randomUUID();
  sessions.set(id, { id: "u-17" });
  cookies.set("session", id, { path: "/", secure: false });
  return new Response("ok");
}
