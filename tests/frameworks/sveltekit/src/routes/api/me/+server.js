import { json } from "@sveltejs/kit";

export function GET({ locals }) {
  if (!locals.user) return new Response(null, { status: 401 });
  return json({ id: locals.user.id });
}
